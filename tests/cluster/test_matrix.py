"""The matrix: each feature, on each declared type of queue, on one node and three, through kills.

One cluster in memory and in virtual time has the queues of all features at once. Each feature is a
generator: it does its first half up to its `yield`. Then every node is killed and started again,
one after the other, so that each queue's leader dies at least once; then all do their second
halves and judge. What became of each feature is told by a test of its own.

Transient queues live on one node and go with it: theirs is the same without the kills.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest
import trio
from trio.testing import MockClock

from leveret.amqp.fields import Value
from leveret.client import (
    Channel,
    Connection,
    Message,
    NotFound,
    Properties,
    PublishRefused,
    ResourceLocked,
    connect,
)
from leveret.testing import cluster

WITHIN_S = 120.0
"""How long is waited for what is to come, in virtual time."""
LATER_S = 600
"""When what waits is due: long after the kills."""
DEAD_S = 3.0
"""How long a node is gone, and how long it is back before the next one goes."""
TYPES: dict[str, dict[str, Value] | None] = {
    "classic": {"x-queue-type": "classic"},
    "quorum": {"x-queue-type": "quorum"},
    "none": {},
    "transient": None,
}
NODES = (1, 3)


@dataclass
class Bench:
    """What one feature works with: its channel, and queues of the type under test."""

    feature: str
    type: str
    url: str
    connection: Connection
    channel: Channel
    meanwhile: trio.Nursery
    """What is started here goes on while the nodes die, and is cancelled behind that."""

    @property
    def is_durable(self) -> bool:
        return TYPES[self.type] is not None

    async def queue(self, name: str = "", /, **arguments: Value) -> str:
        """Declare the feature's queue, or another one of its own."""
        named = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
        made = f"{self.feature}.{name}"
        await self.channel.declare_queue(
            made,
            durable=self.is_durable,
            arguments={**(TYPES[self.type] or {}), **named},
        )
        return made

    async def queue_with_grave(self, **arguments: Value) -> tuple[str, str]:
        """Declare the feature's queue, and one where its dead letters come."""
        dead = await self.queue("dead")
        queue = await self.queue(dead_letter_exchange="", dead_letter_routing_key=dead, **arguments)
        return queue, dead

    async def exchange(self, kind: str, name: str = "x", **arguments: Value) -> str:
        named = {key.replace("_", "-"): value for key, value in arguments.items()}
        made = f"{self.feature}.{name}"
        await self.channel.declare_exchange(made, kind, durable=self.is_durable, arguments=named)
        return made

    async def publish(self, queue: str, *bodies: bytes, **properties: object) -> None:
        for body in bodies:
            await self.channel.publish(body, queue, properties=Properties(**properties))  # type: ignore[arg-type]

    async def count(self, queue: str) -> int:
        return (await self.channel.declare_queue(queue, passive=True)).message_count

    async def take(self, queue: str, wanted: int = 1) -> list[Message]:
        """Wait for so many messages, and take them without acknowledging."""
        taken: list[Message] = []
        with trio.fail_after(WITHIN_S):
            while len(taken) < wanted:
                message = await self.channel.get(queue)
                if message is None:
                    await trio.sleep(0.1)
                else:
                    taken.append(message)
        return taken

    async def bodies(self, queue: str, wanted: int) -> list[bytes]:
        """Take and acknowledge so many messages, and see that there are no more."""
        taken = await self.take(queue, wanted)
        for message in taken:
            await message.ack()
        assert await self.channel.get(queue) is None
        return [message.body for message in taken]

    async def dead(self, queue: str, wanted: int) -> list[tuple[bytes, str]]:
        """Take so many dead letters: body and reason of each."""
        taken = await self.take(queue, wanted)
        for message in taken:
            await message.ack()
        assert await self.channel.get(queue) is None
        return [(message.body, reason(message)) for message in taken]

    async def settle(self, queue: str, ready: int = 0) -> None:
        """Wait until so many messages are ready: until what was settled is."""

        async def is_settled() -> bool:
            return await self.count(queue) == ready

        await until(is_settled)

    async def has_consumers(self, queue: str, wanted: int) -> bool:
        declared = await self.channel.declare_queue(queue, passive=True)
        return declared.consumer_count == wanted

    async def consume(
        self,
        queue: str,
        got: list[tuple[str, bytes]],
        tag: str,
        *,
        prefetch: int = 10,
        priority: int | None = None,
        task_status: trio.TaskStatus[trio.CancelScope],
    ) -> None:
        """Consume until the scope is cancelled; deliveries are noted with the consumer's tag."""
        consumers = (await self.channel.declare_queue(queue, passive=True)).consumer_count
        with trio.CancelScope() as scope:
            async with (
                self.channel.consume(
                    queue, tag=tag, prefetch=prefetch, priority=priority
                ) as deliveries,
                trio.open_nursery() as nursery,
            ):

                async def note() -> None:
                    async for message in deliveries:
                        got.append((tag, message.body))
                        await message.ack()

                nursery.start_soon(note)
                await until(lambda: self.has_consumers(queue, consumers + 1))
                task_status.started(scope)


async def has(got: list[tuple[str, bytes]], wanted: int) -> bool:
    return len(got) >= wanted


def reason(message: Message) -> str:
    deaths = message.headers["x-death"]
    assert isinstance(deaths, list)
    first = deaths[0]
    assert isinstance(first, dict)
    return str(first["reason"])


Halves = Callable[[Bench], AsyncIterator[None]]
FEATURES: dict[str, Halves] = {}


def feature(halves: Halves) -> Halves:
    """Add a feature to the matrix, by its name."""
    FEATURES[halves.__name__.replace("_", " ")] = halves
    return halves


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    with trio.fail_after(WITHIN_S):
        while not await condition():  # noqa: ASYNC110 - the broker is asked
            await trio.sleep(0.1)


async def assert_refused(b: Bench, queue: str, body: bytes) -> None:
    with pytest.raises(PublishRefused):
        await b.publish(queue, body)


# ---- time to live -------------------------------------------------------------------------


@feature
async def ttl_of_a_queue(b: Bench) -> AsyncIterator[None]:
    queue, dead = await b.queue_with_grave(message_ttl=LATER_S * 1000)
    await b.publish(queue, b"0", b"1")
    yield
    assert await b.count(queue) == 2
    await trio.sleep(LATER_S)
    assert [(b"0", "expired"), (b"1", "expired")] == await b.dead(dead, 2)
    assert await b.count(queue) == 0


@feature
async def expiration_of_a_message(b: Bench) -> AsyncIterator[None]:
    queue = await b.queue()
    await b.publish(queue, b"long")
    await b.publish(queue, b"short", expiration=str(LATER_S * 1000))
    await b.publish(queue, b"last")
    yield
    assert await b.count(queue) == 3
    await trio.sleep(LATER_S)
    assert [b"long", b"last"] == await b.bodies(queue, 2)


@feature
async def expiry_of_an_unused_queue(b: Bench) -> AsyncIterator[None]:
    queue = await b.queue(expires=LATER_S * 1000)
    await b.publish(queue, b"x")
    yield
    assert await b.count(queue) == 1
    await trio.sleep(LATER_S + 5)
    with pytest.raises(NotFound):
        await b.count(queue)


# ---- limits -------------------------------------------------------------------------------


@feature
async def overflow_drop_head(b: Bench) -> AsyncIterator[None]:
    queue, dead = await b.queue_with_grave(max_length=3)
    await b.publish(queue, b"0", b"1", b"2", b"3")
    yield
    await b.publish(queue, b"4")
    assert [(b"0", "maxlen"), (b"1", "maxlen")] == await b.dead(dead, 2)
    assert [b"2", b"3", b"4"] == await b.bodies(queue, 3)


@feature
async def limit_of_bytes(b: Bench) -> AsyncIterator[None]:
    queue = await b.queue(max_length_bytes=10)
    await b.publish(queue, b"12345", b"67890")
    yield
    await b.publish(queue, b"abc")
    assert [b"67890", b"abc"] == await b.bodies(queue, 2)


@feature
async def overflow_reject_publish(b: Bench) -> AsyncIterator[None]:
    queue = await b.queue(max_length=2, overflow="reject-publish")
    await b.publish(queue, b"0", b"1")
    await assert_refused(b, queue, b"2")
    yield
    await assert_refused(b, queue, b"3")
    for message in await b.take(queue):
        await message.ack()
    await b.publish(queue, b"4")
    await assert_refused(b, queue, b"5")
    assert [b"1", b"4"] == await b.bodies(queue, 2)


@feature
async def overflow_reject_publish_dlx(b: Bench) -> AsyncIterator[None]:
    queue, dead = await b.queue_with_grave(max_length=1, overflow="reject-publish-dlx")
    await b.publish(queue, b"0")
    await assert_refused(b, queue, b"1")
    yield
    await assert_refused(b, queue, b"2")
    assert [(b"1", "maxlen"), (b"2", "maxlen")] == await b.dead(dead, 2)
    assert [b"0"] == await b.bodies(queue, 1)


# ---- given back, and up -------------------------------------------------------------------


@feature
async def dead_letters_of_rejects(b: Bench) -> AsyncIterator[None]:
    queue, dead = await b.queue_with_grave()
    await b.publish(queue, b"0", b"1")
    [message] = await b.take(queue)
    await message.reject()
    await b.settle(dead, 1)
    yield
    [message] = await b.take(queue)
    await message.reject()
    assert [(b"0", "rejected"), (b"1", "rejected")] == await b.dead(dead, 2)


@feature
async def delivery_limit(b: Bench) -> AsyncIterator[None]:
    queue, dead = await b.queue_with_grave(delivery_limit=2)
    await b.publish(queue, b"x")
    [message] = await b.take(queue)
    await message.nack()
    await b.settle(queue, 1)
    yield
    for _ in range(2):
        [message] = await b.take(queue)
        assert message.redelivered
        await message.nack()
    assert [(b"x", "delivery_limit")] == await b.dead(dead, 1)


@feature
async def requeued_in_place(b: Bench) -> AsyncIterator[None]:
    queue = await b.queue()
    await b.publish(queue, b"0", b"1", b"2", b"3")
    async with b.connection.channel() as channel:
        held = [await channel.get(queue) for _ in range(3)]
        assert held[1] is not None
        await held[1].nack()
    yield
    taken = await b.take(queue, 4)
    assert [b"0", b"1", b"2", b"3"] == [message.body for message in taken]
    await taken[2].nack()
    assert [b"2"] == [message.body for message in await b.take(queue)]


@feature
async def priorities(b: Bench) -> AsyncIterator[None]:
    queue = await b.queue(max_priority=3)
    await b.publish(queue, b"none")
    for priority in (1, 9):
        await b.publish(queue, str(priority).encode(), priority=priority)
    yield
    for priority in (2, 3, 0):
        await b.publish(queue, str(priority).encode(), priority=priority)
    assert [b"9", b"3", b"2", b"1", b"none", b"0"] == await b.bodies(queue, 6)


# ---- delays -------------------------------------------------------------------------------


@feature
async def delay_header(b: Bench) -> AsyncIterator[None]:
    queue = await b.queue()
    await b.publish(queue, b"late", headers={"x-delay": LATER_S * 1000})
    yield
    await b.publish(queue, b"now")
    assert [b"now"] == await b.bodies(queue, 1)
    await trio.sleep(LATER_S)
    assert [b"late"] == await b.bodies(queue, 1)


@feature
async def delayed_exchange(b: Bench) -> AsyncIterator[None]:
    queue = await b.queue()
    exchange = await b.exchange("x-delayed-message", x_delayed_type="direct")
    await b.channel.bind_queue(queue, exchange, "k")
    for delay_s in (LATER_S + 1, LATER_S):
        properties = Properties(headers={"x-delay": delay_s * 1000})
        body = str(delay_s).encode()
        await b.channel.publish(body, "k", exchange=exchange, properties=properties)
    yield
    assert await b.channel.get(queue) is None
    await trio.sleep(LATER_S + 2)
    assert [str(LATER_S).encode(), str(LATER_S + 1).encode()] == await b.bodies(queue, 2)


# ---- consumers ----------------------------------------------------------------------------


@feature
async def single_active_consumer(b: Bench) -> AsyncIterator[None]:
    queue = await b.queue(single_active_consumer=True)
    await b.publish(queue, b"0", b"1")
    yield
    got: list[tuple[str, bytes]] = []
    async with trio.open_nursery() as nursery:
        first = await nursery.start(b.consume, queue, got, "1")
        second = await nursery.start(b.consume, queue, got, "2")
        await b.publish(queue, b"2")
        await until(lambda: has(got, 3))
        first.cancel()
        await until(lambda: b.has_consumers(queue, 1))
        await b.publish(queue, b"3")
        await until(lambda: has(got, 4))
        second.cancel()
    assert [("1", b"0"), ("1", b"1"), ("1", b"2"), ("2", b"3")] == got


@feature
async def consumer_priorities(b: Bench) -> AsyncIterator[None]:
    queue = await b.queue()
    yield
    got: list[tuple[str, bytes]] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(functools.partial(b.consume, queue, got, "low", prefetch=1))
        await nursery.start(
            functools.partial(b.consume, queue, got, "high", prefetch=1, priority=5)
        )
        for number in range(3):
            await b.publish(queue, str(number).encode())
            await until(functools.partial(has, got, number + 1))
            await b.settle(queue)
        nursery.cancel_scope.cancel()
    assert ["high"] * 3 == [tag for tag, _ in got]


@feature
async def prefetch_of_a_channel(b: Bench) -> AsyncIterator[None]:
    queue = await b.queue()
    await b.publish(queue, *(str(number).encode() for number in range(5)))
    yield
    held: list[Message] = []
    async with b.connection.channel() as channel, trio.open_nursery() as nursery:
        await channel.set_prefetch(2)

        async def hold() -> None:
            async for message in channel.consume(queue, prefetch=0):
                held.append(message)  # noqa: PERF401 - the loop does not end

        nursery.start_soon(hold)
        nursery.start_soon(hold)
        await trio.sleep(5)
        assert len(held) == 2
        await held[0].ack()
        await trio.sleep(5)
        assert len(held) == 3
        nursery.cancel_scope.cancel()


@feature
async def auto_delete(b: Bench) -> AsyncIterator[None]:
    yield
    queue = f"{b.feature}."
    await b.channel.declare_queue(queue, durable=b.is_durable, auto_delete=True)
    async with trio.open_nursery() as nursery:
        await nursery.start(b.consume, queue, [], "1")
        nursery.cancel_scope.cancel()

    async def is_gone() -> bool:
        async with connect(b.url) as connection, connection.channel() as channel:
            try:
                await channel.declare_queue(queue, passive=True)
            except NotFound:
                return True
        return False

    await until(is_gone)


@feature
async def exclusive(b: Bench) -> AsyncIterator[None]:
    yield
    if b.type == "quorum":
        return  # refused, as the transcript shows
    queue = f"{b.feature}."
    await b.channel.declare_queue(
        queue, durable=b.is_durable, exclusive=True, arguments=TYPES[b.type]
    )
    async with connect(b.url) as other, other.channel() as channel:
        with pytest.raises(ResourceLocked):
            await channel.get(queue)


# ---- transactions, numbers ----------------------------------------------------------------


@feature
async def transactions(b: Bench) -> AsyncIterator[None]:
    queue = await b.queue()
    async with b.connection.channel(transactional=True) as channel:
        await channel.publish(b"0", queue)
        await channel.publish(b"1", queue)
        await channel.commit()
        await channel.publish(b"lost", queue)
        await channel.rollback()
    yield
    async with b.connection.channel(transactional=True) as channel:
        message = await channel.get(queue)
        assert message is not None
        await message.ack()
        await channel.publish(b"2", queue)
        await channel.commit()
    assert [b"1", b"2"] == await b.bodies(queue, 2)


@feature
async def publishes_through_the_kills(b: Bench) -> AsyncIterator[None]:
    """The client numbers them, and sends again what was not confirmed: each is stored once."""
    queue = await b.queue()
    confirmed: list[int] = []

    async def publish() -> None:
        while True:
            await b.publish(queue, str(len(confirmed)).encode())
            confirmed.append(len(confirmed))
            await trio.sleep(0.05)

    b.meanwhile.start_soon(publish)
    await trio.sleep(2)
    yield
    assert len(confirmed) > 10
    taken: list[int] = []
    while (message := await b.channel.get(queue)) is not None:
        await message.ack()
        taken.append(int(message.body))
    # The last one may have been published though its confirm was not waited for.
    assert taken in (confirmed, [*confirmed, len(confirmed)])


# ---- routing ------------------------------------------------------------------------------

BINDINGS: tuple[tuple[str, str, dict[str, Value], list[bytes]], ...] = (
    ("topic", "a.*", {}, [b"a.b"]),
    ("headers", "", {"x-match": "any", "h": "1", "g": "2"}, [b"a.b"]),
    ("fanout", "", {}, [b"a.b", b"c"]),
    ("direct", "a.b", {}, [b"a.b"]),
)


@feature
async def routing(b: Bench) -> AsyncIterator[None]:
    for kind, key, arguments, _ in BINDINGS:
        queue, exchange = await b.queue(kind), await b.exchange(kind, kind)
        await b.channel.bind_queue(queue, exchange, key, arguments=arguments)
    yield
    for kind, _, _, wanted in BINDINGS:
        for key, value in (("a.b", "1"), ("c", "3")):
            properties = Properties(headers={"h": value})
            exchange = f"{b.feature}.{kind}"
            await b.channel.publish(key.encode(), key, exchange=exchange, properties=properties)
        assert wanted == await b.bodies(f"{b.feature}.{kind}", len(wanted))


@feature
async def alternate_exchange(b: Bench) -> AsyncIterator[None]:
    other = await b.exchange("fanout", "other")
    queue = await b.queue()
    await b.channel.bind_queue(queue, other)
    exchange = await b.exchange("direct", alternate_exchange=other)
    yield
    await b.channel.publish(b"x", "nowhere", exchange=exchange, mandatory=True)
    assert [b"x"] == await b.bodies(queue, 1)


@feature
async def cc_and_bcc(b: Bench) -> AsyncIterator[None]:
    queues = [await b.queue(name) for name in ("to", "cc", "bcc")]
    yield
    headers: dict[str, Value] = {"CC": [queues[1]], "BCC": [queues[2]]}
    await b.publish(queues[0], b"x", headers=headers)
    for queue in queues:
        [message] = await b.take(queue)
        assert {"CC": [queues[1]]} == message.headers


@feature
async def bound_exchanges(b: Bench) -> AsyncIterator[None]:
    inner, outer = await b.exchange("fanout", "inner"), await b.exchange("topic", "outer")
    await b.channel.bind_exchange(inner, outer, "a.#")
    queue = await b.queue()
    await b.channel.bind_queue(queue, inner)
    yield
    for key in ("a.b", "b"):
        await b.channel.publish(key.encode(), key, exchange=outer)
    assert [b"a.b"] == await b.bodies(queue, 1)


# ---- the run ------------------------------------------------------------------------------


class Run:
    """All features on one type of queue and so many nodes; what went wrong, by feature."""

    def __init__(self, type: str, nodes: int) -> None:  # noqa: A002 - as in x-queue-type
        self._type = type
        self._nodes = nodes
        self._started: dict[str, AsyncIterator[None]] = {}
        self.failed: dict[str, Exception] = {}

    async def main(self) -> None:
        group = cluster(self._nodes)
        async with group, contextlib.AsyncExitStack() as stack:
            meanwhile = await stack.enter_async_context(trio.open_nursery())
            for name, halves in FEATURES.items():
                connection = await stack.enter_async_context(connect(group.url))
                channel = await stack.enter_async_context(connection.channel())
                bench = Bench(name, self._type, group.url, connection, channel, meanwhile)
                self._started[name] = halves(bench)
            await self._go_on()
            if TYPES[self._type] is not None:
                for number in range(1, self._nodes + 1):
                    await group.kill(number)
                    await trio.sleep(DEAD_S)
                    await group.start(number)
                    await trio.sleep(DEAD_S)
            meanwhile.cancel_scope.cancel()
            await self._go_on()

    async def _go_on(self) -> None:
        """Have all features that are well do their next half, at once."""
        async with trio.open_nursery() as nursery:
            for name in self._started:
                if name not in self.failed:
                    nursery.start_soon(self._next_half, name)

    async def _next_half(self, name: str) -> None:
        try:
            await anext(self._started[name], None)
        except Exception as error:  # noqa: BLE001 - told by the feature's own test
            self.failed[name] = error


@functools.cache
def run(type: str, nodes: int) -> Run:  # noqa: A002 - as in x-queue-type
    made = Run(type, nodes)
    trio.run(made.main, clock=MockClock(autojump_threshold=0))
    return made


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("nodes", NODES)
def test_a_feature_works_on_every_type_of_queue_though_the_nodes_die(
    name: str,
    type: str,  # noqa: A002 - as in x-queue-type
    nodes: int,
) -> None:
    error = run(type, nodes).failed.get(name)

    if error is not None:
        raise error
