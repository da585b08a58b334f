"""Producer and Consumer: rates, retries, dead letters, draining, and what the headers carry."""

from __future__ import annotations

import logging
from random import Random

import pytest
import trio
from opentelemetry import trace
from trio.testing import MockClock, wait_all_tasks_blocked

from leveret.amqp.fields import Table
from leveret.client import (
    JSON,
    MSGPACK,
    RAW,
    Channel,
    Connection,
    Consumer,
    Message,
    Misuse,
    NotFound,
    Producer,
    Properties,
    Retry,
    Serializer,
    Unroutable,
)
from leveret.client.handling import ATTEMPTS, ERROR, ORIGIN, ROUTING_KEY
from tests.client.conftest import fake_connect
from tests.client.fake_broker import FakeCluster


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "leveret.client")


async def get(channel: Channel, queue: str) -> Message:
    message = await channel.get(queue, no_ack=True)
    assert message is not None
    return message


def consumer(connection: Connection, handler: object, **options: object) -> Consumer:
    retry = Retry(attempts=3, delay_s=1, factor=2, jitter=0)
    settings: dict[str, object] = {"retry": retry, "rng": Random(1)} | options
    return Consumer(connection, "q", handler, **settings)  # type: ignore[arg-type]


# Producer


@pytest.mark.parametrize("serializer", [JSON, MSGPACK])
async def test_values_arrive_as_they_were(
    autojump_clock: MockClock, serializer: Serializer
) -> None:
    cluster = FakeCluster()
    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("q")
        async with Producer(connection, "q", serializer=serializer) as producer:
            await producer.send({"a": [1, "é", None]})
        message = await get(channel, "q")

    assert message.properties.content_type == serializer.content_type
    assert message.properties.delivery_mode == 2
    assert serializer.decode(message.body) == {"a": [1, "é", None]}


async def test_a_rate_is_kept_and_a_burst_let_through(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("q")
        async with Producer(connection, "q", rate_per_s=10, burst=5) as producer:
            times = []
            for number in range(25):
                await producer.send(number)
                times.append(trio.current_time())
    begin = times[0]

    assert [round(at - begin, 6) for at in times[:5]] == [0] * 5
    assert round(times[24] - begin, 6) == 2.0


async def test_messages_that_fit_no_queue_are_an_error(autojump_clock: MockClock) -> None:
    async with fake_connect(FakeCluster()) as connection:
        with pytest.raises(Unroutable) as raised:
            async with Producer(connection, "missing") as producer:
                await producer.send_all(range(3))

    assert raised.value.__notes__ == ["and 2 more of the publisher's messages failed"]


async def test_what_cannot_be_serialized_is_not_sent(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("q")
        async with Producer(connection, "q") as producer:
            with pytest.raises(TypeError):
                await producer.send(object())
        async with Producer(connection, "q", serializer=RAW) as producer:
            with pytest.raises(TypeError, match="raw bodies are bytes"):
                await producer.send("text")
        with pytest.raises(Misuse, match="async with Producer"):
            await Producer(connection, "q").send(1)

    assert cluster.bodies["q"] == []


async def test_a_trace_goes_from_sender_to_handler(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    context = trace.SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=trace.TraceFlags(1))
    seen: list[int] = []
    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("q")
        async with Producer(connection, "q") as producer:
            with trace.use_span(trace.NonRecordingSpan(context)):
                await producer.send(1)
        async with trio.open_nursery() as nursery:

            async def handle(value: object, message: Message) -> None:
                seen.append(trace.get_current_span().get_span_context().trace_id)
                nursery.cancel_scope.cancel()

            nursery.start_soon(consumer(connection, handle).run)

    assert seen == [0xABC]
    assert not trace.get_current_span().get_span_context().is_valid


# Consumer


async def test_no_more_than_so_many_are_handled_at_a_time(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    running = most = done = 0

    async def handle(value: object, message: Message) -> None:
        nonlocal running, most, done
        running += 1
        most = max(most, running)
        await trio.sleep(1)
        running -= 1
        done += 1

    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("q")
        async with Producer(connection, "q") as producer:
            await producer.send_all(range(30))
        ours = consumer(connection, handle, concurrency=4)
        begin = trio.current_time()
        with trio.move_on_after(7.5):
            await ours.run()

    assert (most, done) == (4, 30)
    assert trio.current_time() - begin < 9
    assert cluster.bodies["q"] == []
    statistics = ours.statistics()
    assert (statistics.received, statistics.succeeded, statistics.running) == (30, 30, 0)


async def test_a_failed_message_comes_again_later_and_others_are_not_held_up(
    autojump_clock: MockClock,
) -> None:
    cluster = FakeCluster()
    handled: list[tuple[float, object, object]] = []

    async def handle(value: object, message: Message) -> None:
        handled.append((trio.current_time() - begin, value, message.headers.get(ATTEMPTS)))
        if value == "bad" and len(handled) < 4:
            raise ValueError("not yet")

    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("q")
        async with Producer(connection, "q") as producer:
            await producer.send_all(["bad", "good"])
        ours = consumer(connection, handle, concurrency=1)
        begin = trio.current_time()
        with trio.move_on_after(10):
            await ours.run()

    assert [(round(at), value, attempt) for at, value, attempt in handled] == [
        (0, "bad", None), (0, "good", None), (1, "bad", 1), (3, "bad", 2),
    ]  # fmt: skip
    assert cluster.bodies["q"] == []
    assert (ours.statistics().failed, ours.statistics().retried) == (2, 2)


async def test_what_fails_for_good_goes_to_the_dead_letters(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()

    async def handle(value: object, message: Message) -> None:
        raise ValueError("never")

    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("q")
        await channel.declare_exchange("x")
        await channel.bind_queue("q", "x", "key")
        properties = Properties(headers={"mine": 1}, message_id="m", content_type="text/x")
        await channel.publish(b"body", "key", exchange="x", properties=properties)
        with trio.move_on_after(20):
            await consumer(connection, handle, dead_letter="dead").run()
        dead = await get(channel, "dead")

    assert dead.body == b"body"
    assert (dead.properties.message_id, dead.properties.content_type) == ("m", "text/x")
    wanted: Table = {"mine": 1, ATTEMPTS: 3, ERROR: "ValueError: never", ORIGIN: "q",
                     ROUTING_KEY: "key"}  # fmt: skip
    assert wanted.items() <= dead.headers.items()
    assert cluster.bodies["q"] == []


async def test_a_body_that_cannot_be_decoded_is_given_up_at_once(
    autojump_clock: MockClock,
) -> None:
    cluster = FakeCluster()

    async def handle(value: object, message: Message) -> None:
        pytest.fail("it is not to be handled")

    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("q")
        properties = Properties(content_type="application/json")
        await channel.publish(b"{", "q", properties=properties)
        with trio.move_on_after(0.5):
            await consumer(connection, handle, dead_letter="dead").run()
        dead = await get(channel, "dead")

    assert dead.headers[ATTEMPTS] == 1
    assert "a body that is not application/json" in str(dead.headers[ERROR])


async def test_without_a_dead_letter_queue_it_is_rejected(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()

    async def handle(value: object, message: Message) -> None:
        raise ValueError

    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("q")
        await channel.publish(b"x", "q")
        with trio.move_on_after(10):
            await consumer(connection, handle, retry=Retry(attempts=1)).run()

    assert cluster.bodies["q"] == []
    assert cluster.methods.count("basic.reject") == 1


async def test_a_cancelled_consumer_lets_the_running_end_and_returns_the_rest(
    autojump_clock: MockClock,
) -> None:
    cluster = FakeCluster()
    ended: list[object] = []

    async def handle(value: object, message: Message) -> None:
        await trio.sleep(5)
        ended.append(value)

    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("q")
        async with Producer(connection, "q") as producer:
            await producer.send_all(range(5))
        begin = trio.current_time()
        with trio.move_on_after(1):
            await consumer(connection, handle, concurrency=2).run()

        assert trio.current_time() - begin == pytest.approx(5)
        assert set(ended) == {0, 1}
        await wait_all_tasks_blocked()
        assert cluster.bodies["q"] == [b"2", b"3", b"4"]


async def test_what_does_not_end_in_time_is_cancelled_and_returns(
    autojump_clock: MockClock,
) -> None:
    cluster = FakeCluster()

    async def handle(value: object, message: Message) -> None:
        await trio.sleep_forever()

    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("q")
        async with Producer(connection, "q") as producer:
            await producer.send_all(range(3))
        begin = trio.current_time()
        with trio.move_on_after(1):
            await consumer(connection, handle, concurrency=2, drain_s=3).run()

        assert trio.current_time() - begin == pytest.approx(4)
        await wait_all_tasks_blocked()
        assert cluster.bodies["q"] == [b"0", b"1", b"2"]


async def test_a_message_that_waits_for_its_next_attempt_returns_at_the_end(
    autojump_clock: MockClock,
) -> None:
    cluster = FakeCluster()

    async def handle(value: object, message: Message) -> None:
        raise ValueError

    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("q")
        await channel.publish(b"x", "q")
        begin = trio.current_time()
        with trio.move_on_after(1):
            await consumer(connection, handle, retry=Retry(delay_s=30)).run()

        assert trio.current_time() - begin < 2
        await wait_all_tasks_blocked()
        assert cluster.bodies["q"] == [b"x"]


async def test_a_handler_may_settle_its_message_itself(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()

    async def handle(value: object, message: Message) -> None:
        await message.reject()
        raise ValueError

    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("q")
        await channel.publish(b"x", "q")
        with trio.move_on_after(5):
            await consumer(connection, handle).run()

    assert cluster.bodies["q"] == []


async def test_a_consumer_outlives_its_connection(autojump_clock: MockClock) -> None:
    cluster = FakeCluster("one", "two")
    handled: set[object] = set()

    async def handle(value: object, message: Message) -> None:
        await trio.sleep(1)
        handled.add(value)

    async with fake_connect(cluster) as connection, connection.channel() as channel:
        await channel.declare_queue("q")
        async with Producer(connection, "q") as producer:
            await producer.send_all(range(10))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(consumer(connection, handle, concurrency=3).run)
            await trio.sleep(1.5)
            cluster.stop("one")
            await trio.sleep(10)
            nursery.cancel_scope.cancel()

    assert handled == set(range(10))
    assert cluster.bodies["q"] == []


async def test_a_missing_queue_is_said_as_it_is(autojump_clock: MockClock) -> None:
    async def handle(value: object, message: Message) -> None:
        pytest.fail("there is nothing to handle")

    async with fake_connect(FakeCluster()) as connection:
        with pytest.raises(NotFound):
            await consumer(connection, handle).run()
