"""Clients of metadata: queues that are declared, looked at and deleted, and exclusive ones."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from random import Random
from typing import Final

import trio

from chaos.history import Held, Operation
from chaos.workloads.clients import Clients
from leveret.client import Channel, ClientError, Connection, NotFound, ResourceLocked, connect

OBJECTS: Final = 2
AGE_S: Final = 15.0
"""After so long others take their place: each has a short history, which can be explained soon."""
RATE: Final = 6.0
"""Operations a second, of each client."""
SESSION_S: Final = (1.0, 8.0)
OPEN_S: Final = 8.0
HOLD_S: Final = (0.5, 4.0)
EXCLUSIVE: Final = "exclusive"


async def operate_forever(clients: Clients, name: str) -> None:
    """Declare, look at and delete queues, until told to end."""
    rng = clients.rng(name)
    while clients.publishing:
        until_s = trio.current_time() + rng.uniform(*SESSION_S)
        try:
            async with _connection(clients, name, rng) as connection:
                while clients.publishing and trio.current_time() < until_s:
                    # A look at what is missing costs the channel.
                    async with connection.channel() as channel:
                        while clients.publishing and trio.current_time() < until_s:
                            age = int(clients.now() / AGE_S)
                            target = f"m{rng.randrange(OBJECTS)}.{age}"
                            is_there = await _operate(clients, channel, name, rng, target)
                            await trio.sleep(rng.expovariate(RATE))
                            if not is_there:
                                break
        except (ClientError, trio.TooSlowError) as error:
            clients.trouble[type(error).__name__] += 1
            await trio.sleep(rng.uniform(0.05, 0.4))


@asynccontextmanager
async def _connection(clients: Clients, name: str, rng: Random) -> AsyncIterator[Connection]:
    """A connection to a node by chance, for a session; its loss is the session's end."""
    with trio.fail_after(OPEN_S) as scope:
        url = rng.choice(clients.cluster.urls)
        async with connect(url, robust=False, name=name) as connection:
            # An answer may take as long as the broker waits for a majority.
            scope.deadline = trio.current_time() + SESSION_S[1] + 40
            yield connection


async def _operate(clients: Clients, channel: Channel, who: str, rng: Random, target: str) -> bool:
    """Do one thing, and return whether the object was there."""
    kind = rng.choice(("declare", "delete", "look", "look"))
    began, result, is_known = clients.now(), "unknown", False
    try:
        if kind == "delete":
            await channel.delete_queue(target)
        else:
            await channel.declare_queue(target, passive=kind == "look")
        result, is_known = "ok", True
    except NotFound:
        result, is_known = "missing", True
    finally:
        ended = clients.now() if is_known else float("inf")
        clients.history.add(Operation(began, ended, who, kind, target, result))
    return result == "ok"


async def hold_forever(clients: Clients, name: str) -> None:
    """Have an exclusive queue for a while, again and again, against others who want it, too."""
    rng = clients.rng(name)
    for session in count(1):
        if not clients.publishing:
            return
        try:
            async with (
                _connection(clients, name, rng) as connection,
                connection.channel() as channel,
            ):
                await channel.declare_queue(EXCLUSIVE, exclusive=True, durable=False)
                began = clients.now()
                await trio.sleep(rng.uniform(*HOLD_S))
                ended = clients.now()
                # It was still ours then, else the asking would fail.
                await channel.declare_queue(EXCLUSIVE, exclusive=True, durable=False)
                clients.history.add(Held(began, ended, f"{name}.{session}", EXCLUSIVE))
        except ResourceLocked:
            clients.trouble["exclusive queue is another's"] += 1
        except (ClientError, trio.TooSlowError) as error:
            clients.trouble[type(error).__name__] += 1
        await trio.sleep(rng.uniform(0.05, 0.4))
