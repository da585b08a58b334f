"""Structured concurrency: whatever ends a scope, nothing of it is left, here or at the broker."""

from __future__ import annotations

import gc
import logging
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from leveret.client import (
    AlreadySettled,
    AuthenticationRefused,
    ChannelClosed,
    ConnectFailed,
    Connection,
    ConnectionClosed,
    Message,
    Misuse,
    connect,
)
from leveret.client.streams import Stream
from tests.client.conftest import fake_connect
from tests.client.fake_broker import FakeCluster


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "leveret.client")


class CancelAt(trio.abc.Instrument):
    """Cancels a scope before the n-th step that its task makes."""

    def __init__(self, step: int) -> None:
        self._left = step
        self.task: trio.lowlevel.Task | None = None
        self.scope: trio.CancelScope | None = None
        self.is_done = False

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task and self.scope is not None:
            self._left -= 1
            if self._left == 0:
                self.scope.cancel()
                self.is_done = True


async def use_everything(cluster: FakeCluster) -> None:
    """What a program does in its life, every awaiting method once."""
    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_exchange("x")
        await channel.declare_queue("q")
        await channel.bind_queue("q", "x", "key")
        for body in (b"1", b"2", b"3"):
            await channel.publish(body, "key", exchange="x")
        async with channel.publisher("q", window=2) as publisher:
            for number in range(5):
                await publisher.send(b"%d" % number)
        message = await channel.get("q")
        assert message is not None
        await message.ack()
        async with channel.consume("q", prefetch=2) as deliveries:
            async for message in deliveries:
                await message.ack()
                if message.body == b"1":
                    break
        async for message in channel.consume("q", prefetch=3):
            await trio.lowlevel.checkpoint()
            await message.nack()
            break
        await channel.set_prefetch(5)
        async with connection.channel(transactional=True) as other, other.transaction():
            await other.publish(b"t", "q")
        await connection.update_secret("guest")
        await channel.purge_queue("q")


def test_a_cancellation_at_any_await_leaves_nothing_behind() -> None:
    step = 0
    cancelled = True
    while cancelled:
        step += 1
        cancelled = trio.run(_cancel_at, step, clock=MockClock(autojump_threshold=0))
    assert step > 20


async def _cancel_at(step: int) -> bool:
    cluster = FakeCluster()
    instrument = CancelAt(step)
    trio.lowlevel.add_instrument(instrument)
    before = trio.lowlevel.current_statistics().tasks_living
    with trio.CancelScope() as scope:
        instrument.task, instrument.scope = trio.lowlevel.current_task(), scope
        await use_everything(cluster)
    instrument.scope = None
    trio.lowlevel.remove_instrument(instrument)
    await wait_all_tasks_blocked()

    assert trio.lowlevel.current_statistics().tasks_living == before, step
    assert cluster.connections == [], step
    return instrument.is_done


async def test_what_a_cancelled_consumer_held_returns(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("q")
        for number in range(5):
            await channel.publish(b"%d" % number, "q")
        with trio.move_on_after(1):
            async with channel.consume("q") as deliveries:
                await (await anext(deliveries)).ack()
                await trio.sleep_forever()

        await wait_all_tasks_blocked()
        assert cluster.bodies["q"] == [b"1", b"2", b"3", b"4"]
        assert cluster.queues["q"].consumers == []


async def test_a_timeout_around_one_message_leaves_an_entered_consumer_alone(
    autojump_clock: MockClock,
) -> None:
    cluster = FakeCluster()
    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("q")
        async with channel.consume("q") as deliveries:
            with trio.move_on_after(1) as timeout:
                await anext(deliveries)
            await channel.publish(b"later", "q")
            message = await anext(deliveries)

        assert timeout.cancelled_caught
        assert message.body == b"later"


async def test_a_cancelled_loop_ends_its_consumer(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("q")
        deliveries = channel.consume("q")
        with trio.move_on_after(1):
            async for _ in deliveries:
                pytest.fail("nothing was published")
        await wait_all_tasks_blocked()

        assert cluster.queues["q"].consumers == []


async def test_an_orderly_end_is_no_loss(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "leveret.client")
    async with fake_connect(FakeCluster()) as connection, connection.channel():
        pass

    assert caplog.records == []


async def test_leaving_a_loop_by_break_ends_its_consumer(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("q")
        for number in range(3):
            await channel.publish(b"%d" % number, "q")
        async for message in channel.consume("q"):
            await message.ack()
            break
        gc.collect()
        await wait_all_tasks_blocked()

        assert cluster.bodies["q"] == [b"1", b"2"]
        assert cluster.queues["q"].consumers == []


async def test_the_programs_exceptions_come_out_as_they_are(autojump_clock: MockClock) -> None:
    with pytest.raises(ZeroDivisionError):
        async with fake_connect(FakeCluster()) as connection, connection.channel():
            raise ZeroDivisionError


async def test_acknowledgements_made_before_the_end_are_told(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("q")
        await channel.publish(b"1", "q")
        message = await channel.get("q")
        assert message is not None
        await message.ack()

    assert cluster.bodies["q"] == []


async def test_acknowledgements_of_a_batch_leave_as_one_frame(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    settled: list[tuple[int, bool]] = []
    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("q")
        for number in range(10):
            await channel.publish(b"%d" % number, "q")
        [broker] = cluster.connections
        settle = broker.settle

        def note(channel: object, tag: int, multiple: bool, requeue: bool | None = None) -> None:
            settled.append((tag, multiple))
            settle(channel, tag, multiple, requeue)  # type: ignore[arg-type]

        broker.settle = note  # type: ignore[method-assign]
        async with channel.consume("q") as deliveries:
            await wait_all_tasks_blocked()
            messages = [await anext(deliveries) for _ in range(10)]
            for message in messages[:5] + messages[6:]:
                await message.ack()
            await wait_all_tasks_blocked()
            await messages[5].ack()
            await wait_all_tasks_blocked()

    assert sorted(settled) == [
        (5, True),
        (6, False),
        (7, False),
        (8, False),
        (9, False),
        (10, False),
    ]


# Bad input and misuse


async def test_all_unreachable_hosts_are_listed_with_their_reasons(
    autojump_clock: MockClock,
) -> None:
    cluster = FakeCluster("one", "two", "three")
    cluster.up.clear()

    with pytest.raises(ConnectFailed) as raised:
        async with fake_connect(cluster):
            pass

    assert [(f"{name}:5672", "Connection refused") for name in ("one", "two", "three")] == (
        raised.value.attempts
    )


async def test_a_host_that_does_not_answer_is_left_for_the_next(autojump_clock: MockClock) -> None:
    cluster = FakeCluster("one", "two")
    dial = cluster.dial

    async def hang(address: object, context: object, hostname: object) -> object:
        if str(address) == "one:5672":
            await trio.sleep_forever()
        return await dial(address, context, hostname)  # type: ignore[arg-type]

    async with connect(cluster.url, dial=hang) as connection:  # type: ignore[arg-type]
        assert connection.address == "two:5672"
        assert trio.current_time() == 10


async def test_a_wrong_password_is_not_tried_elsewhere(autojump_clock: MockClock) -> None:
    cluster = FakeCluster("one", "two")
    cluster.password = b"secret"

    with pytest.raises(AuthenticationRefused, match="Check user name 'guest'"):
        async with fake_connect(cluster):
            pass
    assert [host for _, host in cluster.dialled] == ["one"]


async def test_a_mechanism_that_is_not_offered_is_named(autojump_clock: MockClock) -> None:
    cluster = FakeCluster(mechanisms=b"EXTERNAL")

    with pytest.raises(AuthenticationRefused, match="offers the mechanisms EXTERNAL, not PLAIN"):
        async with fake_connect(cluster):
            pass


Use = Callable[[Connection], Awaitable[object]]


async def test_use_after_close_says_so(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    async with fake_connect(cluster) as connection:
        async with connection.channel() as channel:
            await channel.declare_queue("q")
        with pytest.raises(ChannelClosed, match="closed by the program"):
            await channel.publish(b"late", "q")
        with pytest.raises(ChannelClosed, match="closed by the program"):
            await anext(channel.consume("q"))
    with pytest.raises(ConnectionClosed, match="closed by the program"):
        connection.channel()
    with pytest.raises(ConnectionClosed, match="closed by the program"):
        await connection.update_secret("x")


async def test_what_is_not_entered_says_what_to_do(autojump_clock: MockClock) -> None:
    connection = fake_connect(FakeCluster())
    with pytest.raises(Misuse, match="async with connect"):
        connection.channel()
    async with connection:
        with pytest.raises(Misuse, match="async with connection"):
            await connection.channel().declare_queue("q")
        with pytest.raises(Misuse, match="entered once"):
            await connection.__aenter__()


async def test_another_thread_is_told_where_a_connection_belongs() -> None:
    async with fake_connect(FakeCluster()) as connection, connection.channel() as channel:
        await channel.declare_queue("q")

        def elsewhere() -> None:
            trio.run(channel.publish, b"stray", "q")

        with pytest.raises(Misuse, match="belongs to the thread"):
            await trio.to_thread.run_sync(elsewhere)


async def test_two_tasks_cannot_share_a_consumer(autojump_clock: MockClock) -> None:
    async with fake_connect(FakeCluster()) as connection, connection.channel() as channel:
        await channel.declare_queue("q")
        async with channel.consume("q") as deliveries, trio.open_nursery() as nursery:
            nursery.start_soon(anext, deliveries)
            await wait_all_tasks_blocked()
            with pytest.raises(Misuse, match="another task waits"):
                await anext(deliveries)
            nursery.cancel_scope.cancel()


async def test_a_message_is_settled_once(autojump_clock: MockClock) -> None:
    async with fake_connect(FakeCluster()) as connection, connection.channel() as channel:
        await channel.declare_queue("q")
        await channel.publish(b"1", "q")
        await channel.publish(b"2", "q")
        message = await channel.get("q")
        assert isinstance(message, Message)
        await message.ack()
        for settle in (message.ack, message.nack, message.reject):
            with pytest.raises(AlreadySettled):
                await settle()
        unacknowledged = await channel.get("q", no_ack=True)
        assert unacknowledged is not None
        with pytest.raises(AlreadySettled, match="no_ack"):
            await unacknowledged.ack()


async def test_a_flood_without_acknowledgements_waits_in_the_broker(
    autojump_clock: MockClock,
) -> None:
    cluster = FakeCluster()
    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("q")
        async with channel.publisher("q", window=1000) as publisher:
            for number in range(20_000):
                await publisher.send(b"%d" % number)
        async with channel.consume("q", no_ack=True) as deliveries:
            await wait_all_tasks_blocked()
            assert deliveries.buffered < 6_000
            for number in range(20_000):
                assert (await anext(deliveries)).body == b"%d" % number


async def test_a_connection_may_be_closed_at_the_very_moment_when_it_is_there_again() -> None:
    cluster = FakeCluster("one")
    may_dial = trio.Event()
    may_dial.set()

    async def dial(*arguments: object) -> Stream:
        stream = await cluster.dial(*arguments)  # type: ignore[arg-type]
        await may_dial.wait()
        return stream

    async with connect(cluster.url, dial=dial) as connection:
        may_dial = trio.Event()
        cluster.cut()
        await wait_all_tasks_blocked()
        assert not connection.is_connected

        may_dial.set()
        await connection.close()
