"""Clients of a simulated cluster: they publish, consume and declare, and write down what they saw.

Each client lives on a host of its own and goes from node to node as connections break. All of
them draw from the seed. What they do is data in the `History`; they judge nothing.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from random import Random
from typing import TYPE_CHECKING, Final

import trio

from chaos.history import (
    Deliver,
    Depth,
    History,
    MessageId,
    Operation,
    Outcome,
    Publish,
    Recovered,
    Settle,
    body_of,
    id_of,
)
from chaos.simulation.client import Client, Gone, Refused
from chaos.simulation.confirms import Confirms
from chaos.simulation.network import CLIENTS
from chaos.simulation.process import HERE, Process
from chaos.simulation.world import AMQP_PORT, World
from leveret.amqp import ContentReceived, MethodReceived, spec
from leveret.transport import NodeId

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

QUEUES: Final = ("q0", "q1")
ONE_CONSUMER: Final = ("q0",)
"""Queues with one consumer at a time, where the order of all deliveries can be told."""
STREAM: Final = "s0"
"""A stream, which some seeds have; see `streams`."""
EXCHANGE: Final = "both"
"""A fanout exchange, bound to all queues."""
Route = tuple[str, str, tuple[str, ...]]
"""Exchange, routing key, and the queues that it means."""
ROUTES: Final[tuple[Route, ...]] = (
    ("", "q0", ("q0",)),
    ("", "q1", ("q1",)),
    (EXCHANGE, "", QUEUES),
)

CONFIRM_S: Final = 4.0
"""A publisher that waits so long for any confirm looks for another node."""
OPEN_S: Final = 3.0
SIZES: Final = (40, 60, 200, 600, 1500, 5000)
"""Octets of bodies: below and above a sector of the disk."""


class Clients:
    """All clients of one run."""

    def __init__(self, world: World, history: History) -> None:
        self.world = world
        self.history = history
        self.run = f"run-{world.seed}"
        self.publishing = True
        self.consuming = True
        self.is_draining = False
        """Consumers acknowledge at once and stay."""
        self._addresses = 0

    # Setting up and looking.

    async def set_up(self) -> None:
        """Declare queues, exchange and bindings, trying until all nodes know all of it.

        A node hears of a declaration through another one a little later.
        """
        await self._declare()
        for node in self.world.nodes:
            while True:
                with suppress(Gone, Refused):
                    await self.depths(node)
                    break
                await trio.sleep(0.1)

    async def _declare(self) -> None:
        while True:
            try:
                async with self.connected(self.world.nodes[0]) as client:
                    await client.call(
                        spec.ExchangeDeclare(exchange=EXCHANGE, type="fanout", durable=True),
                        spec.ExchangeDeclareOk,
                    )
                    for queue in QUEUES:
                        await client.call(
                            spec.QueueDeclare(queue=queue, durable=True), spec.QueueDeclareOk
                        )
                        await client.call(
                            spec.QueueBind(queue=queue, exchange=EXCHANGE), spec.QueueBindOk
                        )
            except Gone:
                await trio.sleep(0.1)
            else:
                return

    @contextmanager
    def _elsewhere(self) -> Iterator[None]:
        """Let what is opened in the context belong to a new client's host."""
        self._addresses += 1
        high, low = divmod(self._addresses, 250)
        token = HERE.set(Process("client", f"{CLIENTS}{high}.{low + 1}"))
        try:
            yield
        finally:
            HERE.reset(token)

    def connected(self, node: NodeId, *, out_of_band: str = "") -> _Connected:
        """Return an asynchronous context manager of a client of a node; see `Client`."""
        with self._elsewhere():
            address = self.world.hosts[node].address
            client = Client(address, AMQP_PORT, out_of_band=out_of_band)
        return _Connected(client)

    async def depths(self, node: NodeId) -> dict[str, int]:
        """Return how many messages wait in each queue, as a node says.

        Raises:
            Gone, Refused: it does not say.
        """
        async with self.connected(node) as client:
            return {
                queue: (
                    await client.call(
                        spec.QueueDeclare(queue=queue, passive=True), spec.QueueDeclareOk
                    )
                ).message_count
                for queue in QUEUES
            }

    async def note_depths(self, phase: str, *, within_s: float) -> None:
        """Write down the depths through all nodes, once they are 0 or the time is up."""
        for node in self.world.nodes:
            until_s = trio.current_time() + within_s
            depths: dict[str, int] | None = None
            while trio.current_time() < until_s:
                try:
                    depths = await self.depths(node)
                except (Gone, Refused):
                    pass
                else:
                    if not any(depths.values()):
                        break
                await trio.sleep(0.2)
            for queue in QUEUES:
                count = -1 if depths is None else depths[queue]
                self.history.add(Depth(trio.current_time(), phase, node, queue, count))

    async def probe(self, node: NodeId, queue: str, *, since_s: float, within_s: float) -> None:
        """Note how long after `since_s` a fresh client got a publish to a queue confirmed."""
        epoch, found = 0, None
        name = f"probe-{node}-{queue}"
        while found is None and trio.current_time() < since_s + within_s:
            epoch += 1
            publisher = Publisher(self, name, self.world.rng(name), epoch=epoch)
            try:
                async with self.connected(node) as client:
                    await publisher.begin(client)
                    await publisher.publish("", queue, (queue,))
                    await publisher.settle_all(within_s=CONFIRM_S)
            except (Gone, Refused):
                pass
            if publisher.confirmed:
                found = trio.current_time() - since_s
            else:
                await trio.sleep(0.2)
        self.history.add(Recovered(trio.current_time(), node, queue, found))

    # What they do all the time.

    async def publish_forever(
        self, name: str, rate: float, routes: Sequence[Route] = ROUTES
    ) -> None:
        """Publish with confirms, in one connection after the other, until told to end."""
        rng = self.world.rng(name)
        epoch = 0
        while self.publishing:
            epoch += 1
            publisher = Publisher(self, name, rng, epoch=epoch)
            until_s = trio.current_time() + rng.uniform(0.5, 5.0)
            try:
                async with self.connected(rng.choice(self.world.nodes)) as client:
                    await publisher.begin(client)
                    while self.publishing and trio.current_time() < until_s:
                        for _ in range(rng.choice((1, 1, 2, 5, 12))):
                            await publisher.publish(*rng.choice(routes))
                        await publisher.listen(rng.expovariate(rate))
                    if rng.random() < 0.8:
                        await publisher.settle_all(within_s=CONFIRM_S)
            except (Gone, Refused):
                await self._listen_pause(rng)

    async def consume_forever(self, name: str, queue: str) -> None:
        """Consume in one session after the other, until told to end."""
        rng = self.world.rng(name)
        session = 0
        while self.consuming:
            session += 1
            consumer = Consumer(self, f"{name}.{session}", queue, rng)
            try:
                async with self.connected(rng.choice(self.world.nodes)) as client:
                    await consumer.run(client)
            except (Gone, Refused):
                await self._listen_pause(rng)

    async def operate_forever(self, name: str, objects: tuple[str, ...]) -> None:
        """Declare, look at and delete queues, until told to end."""
        rng = self.world.rng(name)
        while self.publishing:
            until_s = trio.current_time() + rng.uniform(1.0, 5.0)
            try:
                async with self.connected(rng.choice(self.world.nodes)) as client:
                    while self.publishing and trio.current_time() < until_s:
                        await self._operate(client, name, rng, rng.choice(objects))
                        await trio.sleep(rng.expovariate(4))
            except Gone:
                await self._listen_pause(rng)

    async def _operate(self, client: Client, who: str, rng: Random, name: str) -> None:
        kind = rng.choice(("declare", "delete", "look", "look"))
        began, result, is_known = trio.current_time(), "unknown", False
        try:
            if kind == "delete":
                await client.call(spec.QueueDelete(queue=name), spec.QueueDeleteOk)
            else:
                method = spec.QueueDeclare(queue=name, passive=kind == "look", durable=True)
                await client.call(method, spec.QueueDeclareOk)
            result, is_known = "ok", True
        except Refused as refused:
            if refused.code != spec.NOT_FOUND:
                raise
            result, is_known = "missing", True
        finally:
            ended = trio.current_time() if is_known else float("inf")
            self.history.add(Operation(began, ended, who, kind, name, result))

    async def _listen_pause(self, rng: Random) -> None:
        await trio.sleep(rng.uniform(0.05, 0.4))


class _Connected:
    """A client for the length of a context: closed in order, or dropped if that fails."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def __aenter__(self) -> Client:
        await self._client.open(within_s=OPEN_S)
        return self._client

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            await self._client.close()
        else:
            self._client.drop()


class Publisher(Confirms):
    """One connection of a publisher, with confirms."""

    def __init__(self, clients: Clients, name: str, rng: Random, *, epoch: int) -> None:
        self._clients = clients
        self._name = name
        self._rng = rng
        self._epoch = epoch
        self._number = 0
        self._open: dict[int, MessageId] = {}
        """What waits for its confirm, by tag; rising."""
        self._returned: dict[MessageId, None] = {}
        self.confirmed = 0

    async def begin(self, client: Client) -> None:
        """Switch confirms on."""
        self._client = client
        await client.call(spec.ConfirmSelect(), spec.ConfirmSelectOk)

    async def publish(self, exchange: str, routing_key: str, queues: tuple[str, ...]) -> None:
        """Publish the next message."""
        self._number += 1
        id_ = MessageId(self._name, self._epoch, self._number)
        self._open[self._number] = id_
        body = body_of(self._clients.run, id_, queues, self._rng.choice(SIZES))
        self._clients.history.add(Publish(trio.current_time(), id_, queues))
        await self._client.publish(exchange, routing_key, body)

    async def listen(self, for_s: float) -> None:
        """Take what comes for a time; give up a node that confirms nothing for long.

        Raises:
            Gone: the connection is over.
        """
        await self._hear(self._client, for_s)
        if len(self._open) > 50:
            await self.settle_all(within_s=CONFIRM_S)

    async def settle_all(self, *, within_s: float) -> None:
        """Wait until nothing is open, as long as something comes in time.

        Raises:
            Gone: nothing came, or the connection is over.
        """
        await self._hear_out(self._client, within_s=within_s)

    @property
    def is_in_doubt(self) -> bool:
        return bool(self._open)

    def _return(self, body: bytes) -> None:
        for queue in (*QUEUES, STREAM):
            id_ = id_of(self._clients.run, queue, body)
            if id_ is not None:
                self._returned[id_] = None

    def _settle(self, tag: int, *, multiple: bool, outcome: str) -> None:
        tags = [open_ for open_ in self._open if open_ <= tag] if multiple else [tag]
        for settled in tags:
            id_ = self._open.pop(settled)
            self.confirmed += outcome == "ok"
            what = "returned" if outcome == "ok" and id_ in self._returned else outcome
            self._clients.history.add(Outcome(trio.current_time(), id_, what))


class Consumer:
    """One session of a consumer."""

    def __init__(self, clients: Clients, session: str, queue: str, rng: Random) -> None:
        self._clients = clients
        self._session = session
        self._queue = queue
        self._rng = rng
        self._open: list[int] = []

    async def run(self, client: Client) -> None:
        """Consume until the session's end.

        Raises:
            Gone, Refused: it ended early.
        """
        rng, clients = self._rng, self._clients
        prefetch = rng.choice((1, 5, 20, 50))
        patience = rng.choice((1, 1, 3, prefetch))
        until_s = trio.current_time() + rng.uniform(0.5, 6.0)
        await client.call(spec.BasicQos(prefetch_count=prefetch), spec.BasicQosOk)
        await client.call(
            spec.BasicConsume(queue=self._queue, consumer_tag="c"), spec.BasicConsumeOk
        )
        while clients.consuming and (clients.is_draining or trio.current_time() < until_s):
            event = await client.next(within_s=0.2)
            match event:
                case None:
                    pass
                case ContentReceived(method=spec.BasicDeliver() as deliver):
                    self._take(deliver, event.body)
                case MethodReceived(method=spec.BasicCancel()):
                    return
                case MethodReceived(method=spec.ConnectionBlocked() | spec.ConnectionUnblocked()):
                    pass
                case _:
                    raise AssertionError(f"a consumer got {event}")
            if self._open and (
                clients.is_draining or event is None or len(self._open) >= min(patience, prefetch)
            ):
                await self._settle(client)
        if rng.random() < 0.5 and not clients.is_draining:
            raise Gone("it left without a word")

    def _take(self, deliver: spec.BasicDeliver, body: bytes) -> None:
        self._open.append(deliver.delivery_tag)
        self._clients.history.add(
            Deliver(
                trio.current_time(),
                self._queue,
                self._session,
                deliver.redelivered,
                id_of(self._clients.run, self._queue, body),
                deliver.delivery_tag,
            )
        )

    async def _settle(self, client: Client) -> None:
        is_requeue = not self._clients.is_draining and self._rng.random() < 0.03
        tags, self._open = self._open, []
        if self._rng.random() < 0.1:
            # One alone, out of turn; the others later.
            tag = self._rng.choice(tags)
            self._open = [open_ for open_ in tags if open_ != tag]
            tags = [tag]
        for tag in tags:
            self._clients.history.add(
                Settle(
                    trio.current_time(),
                    self._queue,
                    self._session,
                    tag,
                    "requeue" if is_requeue else "ack",
                )
            )
        is_multiple = len(tags) > 1
        if is_requeue:
            await client.tell(
                spec.BasicNack(delivery_tag=tags[-1], multiple=is_multiple, requeue=True)
            )
        else:
            await client.tell(spec.BasicAck(delivery_tag=tags[-1], multiple=is_multiple))
