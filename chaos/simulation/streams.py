"""Clients of a stream in a simulated cluster: they publish to it, read it, leave and come back.

They draw from sources of chance of their own, and only some seeds have a stream: the others mean
what they meant before there were any.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Final

import trio

from chaos.history import (
    CaughtUp,
    Following,
    MessageId,
    Outcome,
    Publish,
    Read,
    Settle,
    StreamDeclared,
    body_of,
    id_of,
)
from chaos.simulation.client import Client, Gone, Refused
from chaos.simulation.confirms import Confirms
from chaos.simulation.workload import CONFIRM_S, SIZES, STREAM, Clients
from leveret.amqp import ContentReceived, Event, MethodReceived, Properties, spec
from leveret.broker.queues.machine import ShardMachine

if TYPE_CHECKING:
    from chaos.simulation.world import World
    from leveret.amqp.fields import Table
    from leveret.transport import NodeId

EXCHANGE: Final = "read-too"
"""A fanout exchange, bound to the stream and to a queue."""
ROUTES: Final = (("", STREAM, (STREAM,)), (EXCHANGE, "", ("q0", STREAM)))
OFFSET: Final = "x-stream-offset"
SHARE: Final = 0.4
"""Of the seeds have a stream: such a seed takes half as long again as another one."""
HIGHEST_START: Final = 80
"""Readers that begin at an offset by chance take one up to this, which may be still to come."""
LATE_S: Final = 2.0
"""How much later than readers publishers may begin, for readers that wait for the first message."""
SETTLE_S: Final = 10.0
"""How long a publisher with numbers goes on with what is in doubt after all were told to end."""
READ_ALL_S: Final = 8.0
"""How long a reader after the faults may take for all there is."""
PREFETCH_OF_ALL: Final = 200
QUIET_S: Final = 0.2
"""How long it waits for what should not come."""


@dataclass(frozen=True)
class StreamPlan:
    """Who uses the stream of a run.

    max_bytes: what the stream keeps at most; None: all.
    numbered: publishers that number their messages, and send again what is in doubt.
    """

    max_bytes: int | None
    publishers: int
    numbered: int
    readers: int
    rate: float


def draw_stream(seed: int) -> StreamPlan | None:
    """Draw whether a seed has a stream, and who uses it."""
    rng = Random(f"stream/{seed}")
    if rng.random() >= SHARE:
        return None
    return StreamPlan(
        max_bytes=rng.choice((None, None, None, 10_000, 40_000)),
        publishers=rng.choice((0, 1)),
        numbered=rng.choice((1, 1, 2)),
        readers=rng.choice((2, 3)),
        rate=rng.choice((1.0, 3.0)),
    )


class StreamClients:
    """All that use the stream of one run."""

    def __init__(self, clients: Clients, plan: StreamPlan) -> None:
        self._clients = clients
        self._plan = plan
        self._positions: dict[str, int] = {}
        """By session of a reader that stays for the drain: which offset it is to get next."""

    async def set_up(self) -> None:
        """Declare the stream, trying until all nodes know it; they must know the queues already."""
        limit = self._plan.max_bytes
        arguments: Table = {"x-queue-type": "stream"}
        if limit is not None:
            arguments["x-max-length-bytes"] = limit
        async with trio.open_nursery() as nursery:
            for node in self._clients.world.nodes:
                nursery.start_soon(self._declare_through, node, arguments)
        self._clients.history.add(StreamDeclared(trio.current_time(), STREAM, limit))

    async def _declare_through(self, node: NodeId, arguments: Table) -> None:
        while True:
            try:
                async with self._clients.connected(node) as client:
                    await self._declare(client, arguments)
            except Gone:
                await trio.sleep(0.1)
            else:
                return

    async def _declare(self, client: Client, arguments: Table) -> None:
        await client.call(
            spec.QueueDeclare(queue=STREAM, durable=True, arguments=arguments),
            spec.QueueDeclareOk,
        )
        await client.call(
            spec.ExchangeDeclare(exchange=EXCHANGE, type="fanout", durable=True),
            spec.ExchangeDeclareOk,
        )
        for queue in ("q0", STREAM):
            await client.call(spec.QueueBind(queue=queue, exchange=EXCHANGE), spec.QueueBindOk)

    def start(self, *, publishing: trio.Nursery, consuming: trio.Nursery) -> None:
        """Let all of them begin."""
        plan = self._plan
        for number in range(plan.publishers):
            publishing.start_soon(self._publish, f"s{number}")
        for number in range(plan.numbered):
            publishing.start_soon(self._publish_numbered, f"n{number}")
        for number in range(plan.readers):
            consuming.start_soon(self._read_forever, f"r{number}")

    async def _publish(self, name: str) -> None:
        """Publish to the stream, and to a queue besides, until told to end."""
        await trio.sleep(self._clients.world.rng(f"{name} begins").uniform(0, LATE_S))
        await self._clients.publish_forever(name, self._plan.rate, ROUTES)

    async def _publish_numbered(self, name: str) -> None:
        """Publish under numbers, in one connection after the other, until told to end."""
        clients = self._clients
        rng = clients.world.rng(name)
        publisher = NumberedPublisher(clients, name, rng)
        await trio.sleep(rng.uniform(0, LATE_S))
        ends_s = float("inf")
        while clients.publishing or (publisher.is_in_doubt and trio.current_time() < ends_s):
            if not clients.publishing:
                ends_s = min(ends_s, trio.current_time() + SETTLE_S)
            node = rng.choice(clients.world.nodes)
            try:
                async with clients.connected(node, out_of_band=publisher.numbering) as client:
                    await publisher.run(client, self._plan.rate)
            except (Gone, Refused):
                await trio.sleep(rng.uniform(0.05, 0.4))

    async def _read_forever(self, name: str) -> None:
        """Read in one session after the other; the last one stays for the drain."""
        clients = self._clients
        rng = clients.world.rng(name)
        session, position = 0, 0
        while clients.consuming and not clients.is_draining:
            session += 1
            reader = Reader(clients, f"{name}.{session}", _start(rng, position), rng)
            try:
                async with clients.connected(rng.choice(clients.world.nodes)) as client:
                    await reader.run(client, self._positions)
            except (Gone, Refused):
                await trio.sleep(rng.uniform(0.05, 0.4))
            finally:
                self._positions.pop(reader.session, None)
            position = reader.position or position

    # After the faults.

    @property
    def are_caught_up(self) -> bool:
        """Whether those that read now have all there is."""
        end = offset_behind(self._clients.world)
        return all(position >= end for position in self._positions.values())

    async def read_all(self, phase: str) -> None:
        """Read all there is through each node, and what is behind it through one: nothing."""
        nodes = self._clients.world.nodes
        async with trio.open_nursery() as nursery:
            for node in nodes:
                nursery.start_soon(self._read_whole, phase, node, "first")
            nursery.start_soon(self._read_whole, phase, nodes[-1], "next")

    async def _read_whole(self, phase: str, node: NodeId, start: str) -> None:
        clients = self._clients
        name = f"{phase}-{start}-{node}"
        rng = clients.world.rng(name)
        until_s = trio.current_time() + READ_ALL_S
        attempt = 0
        while trio.current_time() < until_s:
            attempt += 1
            reader = Reader(clients, f"{name}.{attempt}", start, rng)
            try:
                async with clients.connected(node) as client:
                    await reader.read_all(client, within_s=until_s - trio.current_time())
            except (Gone, Refused):
                await trio.sleep(0.2)
            else:
                return


def offset_behind(world: World) -> int:
    """Return the offset that the next message of the stream gets, as the replicas say."""
    return max(
        (
            queue.next - 1
            for node in world.nodes
            if (replicas := world.replicas(node)) is not None
            for machine in replicas.machines
            if isinstance(machine, ShardMachine)
            for queue in machine.queues.values()
            if queue.arrivals is not None
        ),
        default=0,
    )


def _start(rng: Random, position: int) -> str | int:
    """Return where a reader begins that has read up to before `position`: there, for the most."""
    if position and rng.random() < 0.6:
        return max(position - rng.choice((0, 0, 0, 3)), 0)
    return rng.choice(("first", "first", "next", "last", rng.randrange(HIGHEST_START)))


class NumberedPublisher(Confirms):
    """A publisher that numbers its messages, over all its connections."""

    def __init__(self, clients: Clients, name: str, rng: Random) -> None:
        self._clients = clients
        self._name = name
        self._rng = rng
        self._last = 0
        self._kept: dict[int, bytes] = {}
        """All messages from the first that is in doubt on, by number; rising."""
        self._open: set[int] = set()
        """Those of them that are in doubt."""
        self._first_of_channel = 1

    @property
    def is_in_doubt(self) -> bool:
        """Whether some message has no outcome."""
        return bool(self._open)

    @property
    def numbering(self) -> str:
        """What the next channel is opened with."""
        after = min(self._kept, default=self._last + 1) - 1
        return f"publisher={self._clients.run}-{self._name} after={after}"

    async def run(self, client: Client, rate: float) -> None:
        """Send again what is in doubt, in the channel opened with `numbering`; then new messages.

        Raises:
            Gone, Refused: the connection, or its channel, ended early.
        """
        clients, rng = self._clients, self._rng
        self._first_of_channel = min(self._kept, default=self._last + 1)
        await client.call(spec.ConfirmSelect(), spec.ConfirmSelectOk)
        for body in list(self._kept.values()):
            await client.publish("", STREAM, body)
        until_s = trio.current_time() + rng.uniform(0.3, 2.0)
        while clients.publishing and trio.current_time() < until_s:
            for _ in range(rng.choice((1, 1, 3, 8))):
                await self.publish(client)
            await self._hear(client, rng.expovariate(rate))
            if len(self._open) > 50:
                await self._hear_out(client, within_s=CONFIRM_S)
        if not clients.publishing or rng.random() < 0.4:
            await self._hear_out(client, within_s=CONFIRM_S)
        else:
            for _ in range(rng.choice((1, 2, 5))):
                await self.publish(client)
            raise Gone("it left without a word")

    async def publish(self, client: Client) -> None:
        """Publish the next message, in the channel opened with `numbering`."""
        self._last += 1
        id_ = MessageId(self._name, 1, self._last)
        body = body_of(self._clients.run, id_, (STREAM,), self._rng.choice(SIZES))
        self._kept[self._last] = body
        self._open.add(self._last)
        self._clients.history.add(Publish(trio.current_time(), id_, (STREAM,)))
        await client.publish("", STREAM, body)

    def _settle(self, tag: int, *, multiple: bool, outcome: str) -> None:
        settled = self._first_of_channel + tag - 1
        now_s = trio.current_time()
        for number in sorted(self._open) if multiple else [settled]:
            if number <= settled and number in self._open:
                self._open.remove(number)
                id_ = MessageId(self._name, 1, number)
                self._clients.history.add(Outcome(now_s, id_, outcome))
        first = min(self._open, default=self._last + 1)
        for number in [number for number in self._kept if number < first]:
            del self._kept[number]


class Reader:
    """One session of a reader."""

    def __init__(self, clients: Clients, session: str, start: str | int, rng: Random) -> None:
        self._clients = clients
        self.session = session
        self._start = start
        self._rng = rng
        self._open: list[int] = []
        self.position = start if isinstance(start, int) else 0
        """The offset behind what it has got; before that, the highest that it may get first."""
        self._taken_s = 0.0

    async def run(self, client: Client, positions: dict[str, int]) -> None:
        """Read until the session's end; in a drain until all is read, which `positions` shows.

        Raises:
            Gone, Refused: it ended early.
        """
        rng, clients = self._rng, self._clients
        prefetch = rng.choice((1, 3, 10, 50))
        patience = min(rng.choice((1, 1, 3, prefetch)), prefetch)
        holds_s = rng.choice((0.0, 0.0, 1.0, 3.0))
        until_s = trio.current_time() + rng.uniform(0.5, 10.0)
        await self._begin(client, prefetch)
        is_to_catch_up = not clients.is_draining
        while clients.consuming and (clients.is_draining or trio.current_time() < until_s):
            positions[self.session] = self.position
            event = await client.next(within_s=0.2)
            self._take(event)
            if holds_s:
                is_time = event is None and trio.current_time() >= self._taken_s + holds_s
            else:
                is_time = event is None or len(self._open) >= patience
            if self._open and (clients.is_draining or is_time):
                await self._acknowledge(client)
        if is_to_catch_up and not clients.consuming:
            clients.history.add(CaughtUp(trio.current_time(), STREAM, self.session))
        elif not clients.is_draining and rng.random() < 0.5:
            raise Gone("it left without a word")

    async def read_all(self, client: Client, *, within_s: float) -> None:
        """Read all there is, and see that nothing more comes.

        Raises:
            Gone, Refused: it ended early.
        """
        until_s = trio.current_time() + within_s
        await self._begin(client, PREFETCH_OF_ALL)
        end = offset_behind(self._clients.world)
        while trio.current_time() < until_s:
            event = await client.next(within_s=QUIET_S)
            self._take(event)
            if self._open:
                await self._acknowledge(client)
            if event is None and self.position >= end:
                break
        self._clients.history.add(CaughtUp(trio.current_time(), STREAM, self.session))

    async def _begin(self, client: Client, prefetch: int) -> None:
        await client.call(spec.BasicQos(prefetch_count=prefetch), spec.BasicQosOk)
        asked_s = trio.current_time()
        await client.call(
            spec.BasicConsume(queue=STREAM, consumer_tag="r", arguments={OFFSET: self._start}),
            spec.BasicConsumeOk,
        )
        self._clients.history.add(
            Following(trio.current_time(), STREAM, self.session, self._start, prefetch, asked_s)
        )
        if self._start in {"next", "last"}:
            behind = offset_behind(self._clients.world)
            self.position = behind if self._start == "next" else max(behind - 1, 0)

    def _take(self, event: Event | None) -> None:
        match event:
            case None:
                pass
            case ContentReceived(method=spec.BasicDeliver(redelivered=False) as deliver):
                offset = (Properties.decode(event.header).headers or {}).get(OFFSET)
                offset = int(offset) if isinstance(offset, int) else -1
                self._taken_s = trio.current_time()
                self._open.append(deliver.delivery_tag)
                self.position = offset + 1
                self._clients.history.add(
                    Read(
                        trio.current_time(),
                        STREAM,
                        self.session,
                        offset,
                        id_of(self._clients.run, STREAM, event.body),
                        len(event.body),
                        deliver.delivery_tag,
                    )
                )
            case MethodReceived(method=spec.ConnectionBlocked() | spec.ConnectionUnblocked()):
                pass
            case _:
                raise AssertionError(f"a reader got {event}")

    async def _acknowledge(self, client: Client) -> None:
        tags, self._open = self._open, []
        if len(tags) > 1 and self._rng.random() < 0.2:
            # One alone, out of turn; the others later.
            tag = self._rng.choice(tags)
            self._open = [open_ for open_ in tags if open_ != tag]
            tags = [tag]
        now_s = trio.current_time()
        for tag in tags:
            self._clients.history.add(Settle(now_s, STREAM, self.session, tag, "ack"))
        await client.tell(spec.BasicAck(delivery_tag=tags[-1], multiple=len(tags) > 1))
