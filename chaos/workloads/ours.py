"""Publishers and consumers through `leveret.client`, which hides the loss of nodes from them."""

from __future__ import annotations

from random import Random
from typing import Final

import trio

from chaos.history import Deliver, Ended, MessageId, Outcome, Publish, Settle, id_of
from chaos.workloads.clients import QUEUES, Clients, Pace, Route
from leveret.client import (
    Channel,
    ClientError,
    Connection,
    Deliveries,
    Message,
    Publisher,
    PublishRefused,
    Unroutable,
    connect,
)

SESSION_S: Final = (4.0, 20.0)
"""Least and longest life of one connection."""
FLUSH_S: Final = 40.0
"""How long the last confirms of a connection may take; what comes later stays unknown."""
OPEN_S: Final = 10.0
PAUSE_S: Final = (0.05, 0.4)
DRAIN_PREFETCH: Final = 200
REQUEUED: Final = 0.03
"""How often a consumer gives back instead of acknowledging."""


async def publish_forever(
    clients: Clients,
    name: str,
    routes: tuple[Route, ...],
    pace: Pace,
    place: int | None = None,
) -> None:
    """Publish with confirms, in one connection after the other, until told to end.

    place: through the node at this place of the cluster alone; else through any.
    """
    rng = clients.rng(name)
    epoch = 0
    while clients.publishing:
        epoch += 1
        session = _Publishing(clients, name, rng, epoch=epoch, pace=pace)
        urls = _urls(clients, rng, place)
        try:
            # A robust one would go to a node that the broker told it of.
            async with connect(urls, name=name, robust=place is None) as connection:
                session.connection = connection
                async with connection.channel() as channel:
                    await session.run(channel, routes)
        except ClientError as error:
            clients.trouble[type(error).__name__] += 1
            await trio.sleep(rng.uniform(*PAUSE_S))


def _urls(clients: Clients, rng: Random, place: int | None) -> list[str]:
    """Return the addresses to try, in this order: of all nodes, or of one."""
    if place is not None:
        return [clients.cluster.nodes[place].url]
    return rng.sample(clients.cluster.urls, len(clients.cluster.urls))


class _Publishing:
    """One channel of a publisher."""

    connection: Connection

    def __init__(self, clients: Clients, name: str, rng: Random, *, epoch: int, pace: Pace) -> None:
        self._clients = clients
        self._name = name
        self._rng = rng
        self._epoch = epoch
        self._pace = pace
        self._number = 0

    async def run(self, channel: Channel, routes: tuple[Route, ...]) -> None:
        clients, rng = self._clients, self._rng
        publishers = {
            exchange: channel.publisher(exchange=exchange, mandatory=True, on_settled=self._settled)
            for exchange in {route.exchange for route in routes}
        }
        until_s = trio.current_time() + rng.uniform(*SESSION_S)
        while clients.publishing and trio.current_time() < until_s:
            for _ in range(rng.choice(self._pace.bursts)):
                route = rng.choice(routes)
                # Not for ever: a connection may be blocked for as long as a fault lasts.
                with trio.move_on_after(1.0):
                    await self._publish(publishers[route.exchange], route)
            await trio.sleep(self._pace.pause_s(rng))
        with trio.move_on_after(FLUSH_S):
            for publisher in publishers.values():
                await publisher.flush()

    async def _publish(self, publisher: Publisher, route: Route) -> None:
        await publisher.ready()
        self._number += 1
        id_ = MessageId(self._name, self._epoch, self._number)
        body = self._clients.body(id_, route.queues, self._rng)
        node = self._clients.cluster.number_at(self.connection.address)
        self._clients.history.add(Publish(self._clients.now(), id_, route.queues, node))
        with trio.CancelScope(shield=True):
            # There is room: this does not wait.
            await publisher.send(body, route.routing_key)

    def _settled(self, body: bytes, error: Exception | None) -> None:
        clients = self._clients
        found = [id_ for queue in QUEUES if (id_ := id_of(clients.run, queue, body)) is not None]
        match error:
            case None:
                outcome = "ok"
                clients.confirmed_by[clients.cluster.number_at(self.connection.address)] += 1
            case PublishRefused():
                outcome = "nack"
            case Unroutable():
                outcome = "returned"
            case _:
                clients.trouble[type(error).__name__] += 1
                return
        clients.history.add(Outcome(clients.now(), found[0], outcome))


async def consume(
    clients: Clients, session: str, queue: str, rng: Random, place: int | None = None
) -> None:
    """Consume in one session, until its time is over or all are told to end.

    place: as in `publish_forever`.
    """
    consuming = _Consuming(clients, session, queue, rng)
    urls = _urls(clients, rng, place)
    try:
        with trio.move_on_after(OPEN_S) as scope:
            async with (
                connect(urls, name=session) as connection,
                connection.channel() as channel,
                channel.consume(queue, prefetch=consuming.prefetch) as deliveries,
            ):
                scope.deadline = float("inf")
                consuming.connection = connection
                await consuming.run(deliveries)
                is_whole = not connection.statistics().recoveries
            if is_whole and not consuming.is_in_doubt:
                clients.history.add(Ended(clients.now(), queue, session))
    except ClientError as error:
        clients.trouble[type(error).__name__] += 1
        await trio.sleep(rng.uniform(*PAUSE_S))


class _Consuming:
    """One session of a consumer; for the broker, another one after each loss of the connection."""

    connection: Connection

    def __init__(self, clients: Clients, session: str, queue: str, rng: Random) -> None:
        self._clients = clients
        self._session = session
        self._queue = queue
        self._rng = rng
        self._tag = 0
        self._open: list[tuple[str, int, Message]] = []
        self.prefetch = DRAIN_PREFETCH if clients.is_draining else rng.choice((5, 20, 100))
        self._patience = 1 if clients.is_draining else rng.choice((1, 3, self.prefetch))
        self.is_in_doubt = False
        """Whether an acknowledgement was of no use."""

    async def run(self, deliveries: Deliveries) -> None:
        """Take and settle until the session is over; what is open then, returns."""
        clients = self._clients
        until_s = trio.current_time() + self._rng.uniform(*SESSION_S)
        while clients.consuming and (clients.is_draining or trio.current_time() < until_s):
            is_quiet = True
            with trio.move_on_after(0.2):
                self._take(await anext(deliveries))
                is_quiet = False
            if self._open and (is_quiet or len(self._open) >= self._patience):
                await self._settle()

    def _take(self, message: Message) -> None:
        self._tag += 1
        losses = self.connection.statistics().recoveries
        session = f"{self._session}+{losses}" if losses else self._session
        self._open.append((session, self._tag, message))
        clients = self._clients
        id_ = id_of(clients.run, self._queue, message.body)
        clients.history.add(
            Deliver(clients.now(), self._queue, session, message.redelivered, id_, self._tag)
        )

    async def _settle(self) -> None:
        clients, rng = self._clients, self._rng
        is_requeue = not clients.is_draining and rng.random() < REQUEUED
        taken, self._open = self._open, []
        if rng.random() < 0.1:
            # One alone, out of turn; the others later.
            rng.shuffle(taken)
            self._open = sorted(taken[1:], key=lambda entry: entry[1])
            taken = taken[:1]
        for session, tag, message in taken:
            kind = "requeue" if is_requeue else "ack"
            clients.history.add(Settle(clients.now(), self._queue, session, tag, kind))
            is_taken = await (message.nack(requeue=True) if is_requeue else message.ack())
            self.is_in_doubt |= not is_taken
