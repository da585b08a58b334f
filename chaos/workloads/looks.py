"""Fresh clients that set up, look how deep the queues are, and try whether the cluster serves."""

from __future__ import annotations

from typing import Final

import trio

from chaos.history import Depth, MessageId, Outcome, Publish, Recovered, Replica
from chaos.members import Node
from chaos.workloads.clients import EXCHANGE, ORDERS, QUEUES, SINGLE, WORK, Clients
from leveret.amqp.fields import Value
from leveret.cli.ask import ask_node
from leveret.cli.exits import Failure
from leveret.client import ClientError, PublishRefused, Unroutable, connect
from leveret.node.control.replies import Digests

ARGUMENTS: Final[dict[str, dict[str, Value]]] = {SINGLE: {"x-single-active-consumer": True}}
ONCE_S: Final = 5.0
"""How long one try may take."""
EQUAL_S: Final = 30.0


async def set_up(clients: Clients, *, within_s: float) -> None:
    """Declare queues, exchange and bindings, and wait until all nodes know all of it.

    A node hears of a declaration through another one a little later.
    """
    with trio.fail_after(within_s):
        async with (
            connect(clients.cluster.urls) as connection,
            connection.channel() as channel,
        ):
            await channel.declare_exchange(EXCHANGE, "fanout")
            for queue in QUEUES:
                arguments = {**clients.cluster.queue_arguments, **ARGUMENTS.get(queue, {})}
                await channel.declare_queue(queue, arguments=arguments)
            for queue in (ORDERS, WORK):
                await channel.bind_queue(queue, EXCHANGE)
        for node in clients.cluster.nodes:
            while await _depths(node) is None:  # noqa: ASYNC110 - another process
                await trio.sleep(0.1)
        # A binding comes behind its queue, which is all that a depth tells.
        await trio.sleep(1.0)


async def _depths(node: Node) -> dict[str, int] | None:
    """Return how many messages wait in each queue, as a node says; None if it does not."""
    with trio.move_on_after(ONCE_S):
        try:
            async with (
                connect(node.url, robust=False) as connection,
                connection.channel() as channel,
            ):
                return {
                    queue: (await channel.declare_queue(queue, passive=True)).message_count
                    for queue in QUEUES
                }
        except ClientError:
            pass
    return None


async def note_depths(
    clients: Clients, phase: str, *, within_s: float, until_empty: bool = True
) -> None:
    """Write down the depths through all nodes, once they are 0 or the time is up."""
    async with trio.open_nursery() as nursery:
        for node in clients.cluster.nodes:
            nursery.start_soon(_note_depth, clients, phase, node, within_s, until_empty)


async def _note_depth(
    clients: Clients,
    phase: str,
    node: Node,
    within_s: float,
    until_empty: bool,  # noqa: FBT001 - a nursery passes by place
) -> None:
    depths: dict[str, int] | None = None
    with trio.move_on_after(within_s):
        while depths is None or (until_empty and any(depths.values())):
            depths = await _depths(node) or depths
            await trio.sleep(0.2)
    for queue in QUEUES:
        count = -1 if depths is None else depths[queue]
        clients.history.add(Depth(clients.now(), phase, node.number, queue, count))


async def probe(clients: Clients, *, since_s: float, within_s: float) -> None:
    """Note how long after `since_s` a fresh client of each node had each queue confirm."""
    async with trio.open_nursery() as nursery:
        for node in list(clients.cluster.nodes):
            nursery.start_soon(_probe, clients, node, since_s, within_s)


async def _probe(clients: Clients, node: Node, since_s: float, within_s: float) -> None:
    waiting = list(QUEUES)
    name = f"probe-{node.number}-{since_s:.3f}"
    number = 0
    while waiting and clients.now() < since_s + within_s:
        with trio.move_on_after(ONCE_S):
            try:
                async with (
                    connect(node.url, robust=False) as connection,
                    connection.channel() as channel,
                ):
                    while waiting:
                        queue = waiting[0]
                        number += 1
                        id_ = MessageId(name, 1, number)
                        body = clients.body(id_, (queue,), clients.rng(name))
                        clients.history.add(Publish(clients.now(), id_, (queue,), node.number))
                        outcome = "ok"
                        try:
                            await channel.publish(body, queue, mandatory=True)
                        except Unroutable:
                            outcome = "returned"
                        except PublishRefused:
                            outcome = "nack"
                        now = clients.now()
                        clients.history.add(Outcome(now, id_, outcome))
                        if outcome == "ok":
                            waiting.pop(0)
                            clients.history.add(
                                Recovered(now, node.number, queue, round(now - since_s, 3))
                            )
            except ClientError as error:
                clients.trouble[f"probe: {type(error).__name__}"] += 1
        if waiting:
            await trio.sleep(0.1)
    for queue in waiting:
        clients.history.add(Recovered(clients.now(), node.number, queue, None))


async def compare(clients: Clients) -> list[str]:
    """Write down the replicas' states when nothing moves any more; return who does not tell."""
    if not clients.cluster.is_leveret:
        return []
    digests: dict[int, Digests | None] = {}
    with trio.move_on_after(EQUAL_S):
        while True:
            digests = {node.number: await _digests(node) for node in clients.cluster.nodes}
            told = [digest.groups for digest in digests.values() if digest is not None]
            if len(told) == len(digests) and all(groups == told[0] for groups in told):
                break
            await trio.sleep(0.3)
    missing = []
    for number, digest in digests.items():
        if digest is None:
            missing.append(f"node {number} does not tell the state of its replicas")
            continue
        for group in digest.groups:
            clients.history.add(Replica(number, group.group, group.applied_index, group.digest))
    return missing


async def _digests(node: Node) -> Digests | None:
    with trio.move_on_after(ONCE_S):
        try:
            return await ask_node(node.folder, "digests", Digests)
        except Failure:
            pass
    return None
