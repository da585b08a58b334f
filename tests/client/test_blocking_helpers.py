"""Producer and Consumer of the blocking face: threads, retries, dead letters, and clean ends."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from random import Random

import pytest

from leveret.client import (
    JSON,
    MSGPACK,
    RAW,
    ConsumerCancelled,
    Misuse,
    NotFound,
    Properties,
    Retry,
    Serializer,
    Unroutable,
)
from leveret.client.blocking import Channel, Connection, Consumer, Message, Producer, connect
from leveret.client.handling import ATTEMPTS, ERROR, ORIGIN, ROUTING_KEY
from leveret.client.outgoing import Pace
from leveret.testing import blocking

WITHIN_S = 30
AT_ONCE = Retry(attempts=3, delay_s=0.01, factor=1, jitter=0)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


@pytest.fixture
def connection() -> Iterator[Connection]:
    with blocking.broker() as broker, connect(broker.url, timeout_s=WITHIN_S) as opened:
        yield opened


@pytest.fixture
def channel(connection: Connection) -> Channel:
    """A channel, and the queue `q`."""
    opened = connection.channel()
    opened.declare_queue("q")
    return opened


def consumer(connection: Connection, handler: object, **options: object) -> Consumer:
    settings: dict[str, object] = {"retry": AT_ONCE, "rng": Random(1)} | options
    return Consumer(connection, "q", handler, **settings)  # type: ignore[arg-type]


def send(connection: Connection, *values: object) -> None:
    with Producer(connection, "q") as producer:
        producer.send_all(values)


def left(channel: Channel, queue: str = "q") -> list[bytes]:
    """Take what is in a queue."""
    bodies = []
    while (message := channel.get(queue, no_ack=True)) is not None:
        bodies.append(message.body)
    return bodies


def in_threads(count: int, work: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WITHIN_S)
    assert not any(thread.is_alive() for thread in threads)


# Producer


@pytest.mark.parametrize("serializer", [JSON, MSGPACK])
def test_values_arrive_as_they_were(
    connection: Connection, channel: Channel, serializer: Serializer
) -> None:
    with Producer(connection, "q", serializer=serializer) as producer:
        producer.send({"a": [1, "é", None]}, headers={"hare": 1})
    message = channel.get("q", no_ack=True)

    assert message is not None
    assert message.properties.content_type == serializer.content_type
    assert message.properties.delivery_mode == 2
    assert message.headers == {"hare": 1}
    assert serializer.decode(message.body) == {"a": [1, "é", None]}


def test_many_threads_use_one_producer(connection: Connection, channel: Channel) -> None:
    with Producer(connection, "q", window=7) as producer:

        def work(number: int) -> None:
            for index in range(50):
                producer.send(100 * number + index)
            producer.flush()

        in_threads(8, work)
        statistics = producer.statistics()

    assert (statistics.sent, statistics.confirmed, statistics.in_flight) == (400, 400, 0)
    bodies = [int(body) for body in left(channel)]
    assert {100 * number + index for number in range(8) for index in range(50)} == set(bodies)
    assert len(bodies) == 400
    for number in range(8):
        own = [body for body in bodies if body // 100 == number]
        assert sorted(own) == own


def test_a_rate_gives_each_message_its_turn_and_lets_a_burst_through() -> None:
    pace = Pace(rate_per_s=10, burst=5)

    turns = [pace.turn(now=100.0) for _ in range(25)]

    assert [turn <= 100 for turn in turns] == [True] * 5 + [False] * 20
    assert turns[24] == pytest.approx(102)
    assert pace.turn(now=200.0) <= 200


def test_a_producer_with_a_rate_sends_everything(connection: Connection, channel: Channel) -> None:
    with Producer(connection, "q", rate_per_s=1_000) as producer:
        producer.send_all(range(5))

    assert left(channel) == [b"0", b"1", b"2", b"3", b"4"]


def test_messages_that_fit_no_queue_are_an_error(connection: Connection) -> None:
    with pytest.raises(Unroutable) as raised, Producer(connection, "missing") as producer:
        producer.send_all(range(3))

    assert raised.value.__notes__ == ["and 2 more of the publisher's messages failed"]


def test_what_cannot_be_sent_is_refused(connection: Connection, channel: Channel) -> None:
    with Producer(connection, "q") as producer, pytest.raises(TypeError):
        producer.send(object())
    with Producer(connection, "q", serializer=RAW) as producer, pytest.raises(TypeError):
        producer.send("text")
    with pytest.raises(Misuse, match="with Producer"):
        Producer(connection, "q").send(1)
    with pytest.raises(ValueError, match="rate"):
        Producer(connection, "q", rate_per_s=0)

    assert left(channel) == []


# Consumer


def test_so_many_are_handled_at_a_time_and_no_more(
    connection: Connection, channel: Channel
) -> None:
    together = threading.Barrier(4)
    lock = threading.Lock()
    running = most = done = 0

    def handle(value: object, message: Message) -> None:
        nonlocal running, most, done
        with lock:
            running += 1
            most = max(most, running)
        together.wait(WITHIN_S)  # nobody gets past here before four are
        with lock:
            running -= 1
            done += 1
            if done == 20:
                ours.stop()

    send(connection, *range(20))
    ours = consumer(connection, handle, concurrency=4)
    ours.run()

    assert (most, done) == (4, 20)
    statistics = ours.statistics()
    assert (statistics.received, statistics.succeeded, statistics.running) == (20, 20, 0)
    assert left(channel) == []


def test_a_failed_message_comes_again_and_others_are_not_held_up(
    connection: Connection, channel: Channel
) -> None:
    handled: list[tuple[object, object]] = []

    def handle(value: object, message: Message) -> None:
        handled.append((value, message.headers.get(ATTEMPTS)))
        if value == "bad" and message.headers.get(ATTEMPTS) != 2:
            raise ValueError("not yet")
        if len(handled) == 4:
            ours.stop()

    send(connection, "bad", "good")
    retry = Retry(attempts=3, delay_s=1, factor=0.01, jitter=0)
    ours = consumer(connection, handle, concurrency=1, retry=retry)
    ours.run()

    assert handled == [("bad", None), ("good", None), ("bad", 1), ("bad", 2)]
    assert (ours.statistics().failed, ours.statistics().retried) == (2, 2)
    assert left(channel) == []


def test_what_fails_for_good_goes_to_the_dead_letters(
    connection: Connection, channel: Channel
) -> None:
    def handle(value: object, message: Message) -> None:
        raise ValueError("never")

    channel.declare_exchange("x", durable=False)
    channel.bind_queue("q", "x", "key")
    properties = Properties(headers={"mine": 1}, message_id="m", content_type="text/x")
    channel.publish(b"body", "key", exchange="x", properties=properties)
    ours = consumer(connection, handle, dead_letter="dead")
    running = threading.Thread(target=ours.run)
    running.start()
    channel.declare_queue("dead")
    with channel.consume("dead", no_ack=True, timeout_s=WITHIN_S) as deliveries:
        dead = next(deliveries)
    ours.stop()
    running.join(WITHIN_S)

    assert (dead.body, dead.properties.message_id, dead.properties.content_type) == (
        b"body",
        "m",
        "text/x",
    )
    wanted = {"mine": 1, ATTEMPTS: 3, ERROR: "ValueError: never", ORIGIN: "q", ROUTING_KEY: "key"}
    assert wanted.items() <= dead.headers.items()
    assert (ours.statistics().dead, left(channel)) == (1, [])


def test_a_body_that_cannot_be_decoded_is_given_up_at_once(
    connection: Connection, channel: Channel
) -> None:
    def handle(value: object, message: Message) -> None:
        assert value == "last"
        ours.stop()

    channel.publish(b"{", "q", properties=Properties(content_type="application/json"))
    send(connection, "last")
    ours = consumer(connection, handle, concurrency=1, dead_letter="dead")
    ours.run()
    dead = channel.get("dead", no_ack=True)

    assert dead is not None
    assert dead.headers[ATTEMPTS] == 1
    assert "a body that is not application/json" in str(dead.headers[ERROR])


def test_without_a_dead_letter_queue_it_is_rejected(
    connection: Connection, channel: Channel
) -> None:
    def handle(value: object, message: Message) -> None:
        if value == "last":
            ours.stop()
        else:
            raise ValueError

    send(connection, "bad", "last")
    ours = consumer(connection, handle, concurrency=1, retry=Retry(attempts=1))
    ours.run()

    assert (ours.statistics().dead, left(channel)) == (1, [])


def test_a_stop_lets_the_running_end_and_returns_the_rest(
    connection: Connection, channel: Channel
) -> None:
    ended: list[object] = []
    begun, may_end = threading.Barrier(3), threading.Event()

    def handle(value: object, message: Message) -> None:
        begun.wait(WITHIN_S)
        assert may_end.wait(WITHIN_S)
        ended.append(value)

    send(connection, *range(5))
    ours = consumer(connection, handle, concurrency=2)
    running = threading.Thread(target=ours.run)
    running.start()
    begun.wait(WITHIN_S)
    ours.stop()
    with channel.consume("q", no_ack=True) as deliveries:
        returned = sorted(next(deliveries).body for _ in range(3))
    may_end.set()
    running.join(WITHIN_S)

    assert (set(ended), returned) == ({0, 1}, [b"2", b"3", b"4"])
    assert (ours.statistics().succeeded, left(channel)) == (2, [])


def test_what_does_not_end_in_time_goes_on_but_its_message_returns(
    connection: Connection, channel: Channel
) -> None:
    has_ended, may_end = threading.Event(), threading.Event()

    def handle(value: object, message: Message) -> None:
        ours.stop()
        may_end.wait(WITHIN_S)
        assert not message.ack()
        has_ended.set()

    send(connection, 1)
    ours = consumer(connection, handle, concurrency=2, drain_s=0)
    ours.run()
    message = channel.get("q", no_ack=True)
    may_end.set()

    assert message is not None
    assert message.redelivered
    assert has_ended.wait(WITHIN_S)


def test_a_message_that_waits_for_its_next_attempt_returns_at_the_end(
    connection: Connection, channel: Channel
) -> None:
    def handle(value: object, message: Message) -> None:
        if value == "last":
            ours.stop()
        else:
            raise ValueError

    send(connection, "bad", "last")
    ours = consumer(connection, handle, concurrency=1, retry=Retry(delay_s=3_600))
    ours.run()

    assert left(channel) == [b'"bad"']
    assert (ours.statistics().held, ours.statistics().retried) == (0, 0)


def test_a_handler_may_settle_its_message_itself(connection: Connection, channel: Channel) -> None:
    def handle(value: object, message: Message) -> None:
        message.reject()
        ours.stop()
        raise ValueError

    send(connection, 1)
    ours = consumer(connection, handle)
    ours.run()

    assert left(channel) == []


def test_a_queue_that_is_deleted_ends_the_run(connection: Connection, channel: Channel) -> None:
    def handle(value: object, message: Message) -> None:
        message.ack()
        channel.delete_queue("q")

    send(connection, 1)
    with pytest.raises(ConsumerCancelled):
        consumer(connection, handle, concurrency=3).run()
    with pytest.raises(NotFound):
        consumer(connection, handle).run()


def test_an_exit_of_a_handler_ends_the_run(connection: Connection, channel: Channel) -> None:
    def handle(value: object, message: Message) -> None:
        raise SystemExit(7)

    send(connection, 1)
    with pytest.raises(SystemExit) as raised:
        consumer(connection, handle).run()

    assert raised.value.code == 7
    assert left(channel) == [b"1"]


def test_a_signal_may_stop_a_run(connection: Connection, channel: Channel) -> None:
    def handle(value: object, message: Message) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)

    send(connection, 1)
    ours = consumer(connection, handle)
    before = signal.signal(signal.SIGUSR1, lambda *_: ours.stop())
    try:
        ours.run()
    finally:
        signal.signal(signal.SIGUSR1, before)

    assert left(channel) == []


def test_a_run_after_a_stop_is_a_new_one(connection: Connection, channel: Channel) -> None:
    handled: Counter[object] = Counter()

    def handle(value: object, message: Message) -> None:
        handled[value] += 1
        ours.stop()
        ours.stop()

    ours = consumer(connection, handle, concurrency=1)
    for value in ("a", "b"):
        send(connection, value)
        ours.run()

    assert handled == {"a": 1, "b": 1}


def test_a_consumer_handles_one_at_a_time_or_more(connection: Connection) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        Consumer(connection, "q", print, concurrency=0)
