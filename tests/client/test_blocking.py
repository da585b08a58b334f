"""The blocking face against a Leveret node, a Leveret cluster and RabbitMQ: threads and forks."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from leveret.client import (
    AuthenticationRefused,
    ChannelClosed,
    ConnectFailed,
    ConnectionClosed,
    ConsumerCancelled,
    NotFound,
    PreconditionFailed,
    Properties,
    TimedOut,
    Unroutable,
)
from leveret.client.blocking import Channel, Connection, Message, connect
from tests.client.brokers import Nodes, Target

Wait = Callable[[Callable[[], bool]], None]


@pytest.fixture
def connection(target: Target, caplog: pytest.LogCaptureFixture) -> Iterator[Connection]:
    caplog.set_level(logging.ERROR, "leveret.client")
    target.heal()
    with connect(target.url, timeout_s=30) as opened:
        yield opened


@pytest.fixture
def channel(connection: Connection) -> Channel:
    return connection.channel()


@pytest.fixture
def queue(channel: Channel, name: str) -> Iterator[str]:
    channel.declare_queue(name)
    yield name
    channel.delete_queue(name)


@pytest.fixture
def until() -> Wait:
    """Waits for what only a broker or another process can bring about."""

    def wait(is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not is_so():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    return wait


def count(channel: Channel, queue: str) -> int:
    return channel.declare_queue(queue, passive=True).message_count


def taken(channel: Channel, queue: str, number: int) -> list[Message]:
    messages = []
    with channel.consume(queue) as deliveries:
        for _ in range(number):
            messages.append(next(deliveries))
            messages[-1].ack()
    return messages


def test_messages_arrive_whole_and_in_order(channel: Channel, queue: str) -> None:
    properties = Properties(headers={"n": 1}, delivery_mode=2)
    channel.publish(b"x" * 300_000, queue, properties=properties)
    with channel.publisher(queue, window=100) as publisher:
        for number in range(2000):
            publisher.send(b"%d" % number)
    first, *rest = taken(channel, queue, 2001)

    assert (first.body, first.properties) == (b"x" * 300_000, properties)
    assert [b"%d" % number for number in range(2000)] == [message.body for message in rest]
    assert count(channel, queue) == 0


def test_threads_share_a_channel(channel: Channel, queue: str) -> None:
    def publish(first: int) -> None:
        for number in range(first, first + 50):
            channel.publish(b"%d" % number, queue)

    threads = [threading.Thread(target=publish, args=(first,)) for first in range(0, 200, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {int(message.body) for message in taken(channel, queue, 200)} == set(range(200))


def test_threads_share_a_consumer_and_each_message_goes_to_one(
    channel: Channel, queue: str
) -> None:
    received: Counter[int] = Counter()
    with channel.publisher(queue) as publisher:
        for number in range(500):
            publisher.send(b"%d" % number)
    deliveries = channel.consume(queue, timeout_s=0.5)

    def consume() -> None:
        for message in deliveries:
            received[int(message.body)] += 1
            message.ack()

    threads = [threading.Thread(target=consume) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    deliveries.cancel()

    assert Counter(range(500)) == received


def test_cancel_from_another_thread_ends_the_loop(channel: Channel, queue: str) -> None:
    deliveries = channel.consume(queue)
    threading.Timer(0.1, deliveries.cancel).start()

    assert list(deliveries) == []


def test_an_acknowledgement_leaves_though_the_program_does_nothing_more(
    connection: Connection, channel: Channel, queue: str, until: Wait
) -> None:
    for _ in range(2):
        channel.publish(b"x", queue)
    other = connection.channel()
    deliveries = channel.consume(queue, prefetch=1)
    next(deliveries).ack()

    until(lambda: deliveries.buffered == 1)  # the broker has sent the next one
    other.close()


def test_what_nobody_took_returns(connection: Connection, channel: Channel, queue: str,
                                  until: Wait) -> None:  # fmt: skip
    for number in range(10):
        channel.publish(b"%d" % number, queue)
    with connection.channel() as other, other.consume(queue, prefetch=5) as deliveries:
        next(deliveries).ack()

    until(lambda: count(channel, queue) == 9)


def test_errors_are_those_of_the_other_face(
    connection: Connection, channel: Channel, queue: str, name: str
) -> None:
    missing = f"{name}-missing"
    with pytest.raises(NotFound):
        channel.declare_queue(missing, passive=True)
    with pytest.raises(NotFound):
        channel.consume(missing)
    with pytest.raises(PreconditionFailed) as raised:
        channel.declare_queue(queue, durable=False)
    assert raised.value.differs == ("durable", "'false'", "'true'")
    with pytest.raises(Unroutable):
        channel.publish(b"x", missing, mandatory=True)
    other = connection.channel()
    doomed = other.declare_queue(missing)
    deliveries = channel.consume(doomed)
    other.delete_queue(doomed)
    with pytest.raises(ConsumerCancelled):
        next(deliveries)
    other.close()
    with pytest.raises(ChannelClosed, match="closed by the program"):
        other.publish(b"late", queue)


def test_get_and_exchanges(channel: Channel, queue: str, name: str) -> None:
    channel.declare_exchange(name, "topic", durable=False)
    channel.bind_queue(queue, name, "a.#")
    channel.publish(b"1", "a.b", exchange=name, mandatory=True)
    message = channel.get(queue)
    assert message is not None
    assert (message.body, message.remaining, message.routing_key) == (b"1", 0, "a.b")
    assert message.nack()
    channel.unbind_queue(queue, name, "a.#")
    assert channel.purge_queue(queue) == 1
    assert channel.get(queue) is None
    channel.delete_exchange(name)


def test_calls_find_their_replies(connection: Connection, channel: Channel) -> None:
    server = connection.channel()
    requests = server.declare_queue(exclusive=True)
    deliveries = server.consume(requests, no_ack=True)

    def serve() -> None:
        for request in deliveries:
            server.reply(request, request.body.upper())

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        asked = Properties(type="question")
        assert channel.call(b"abc", requests.name, properties=asked).body == b"ABC"
    finally:
        deliveries.cancel()
        thread.join()
    with pytest.raises(TimedOut, match=r"no answer within 0\.1 s"):
        channel.call(b"abc", requests.name, timeout_s=0.1)


def test_transactions(connection: Connection, channel: Channel, queue: str) -> None:
    with connection.channel(transactional=True) as tx:
        with pytest.raises(ZeroDivisionError), tx.transaction():
            tx.publish(b"gone", queue)
            raise ZeroDivisionError
        with tx.transaction():
            tx.publish(b"1", queue)
            assert count(channel, queue) == 0

    assert count(channel, queue) == 1


def test_a_forked_child_has_a_transport_of_its_own(
    connection: Connection, channel: Channel, queue: str
) -> None:
    channel.publish(b"from the parent", queue)
    exclusive = channel.declare_queue(exclusive=True)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            channel.publish(b"from the child", queue)
            connection.close()
            code = 0
        finally:
            os._exit(code)  # the child must not go on with the tests
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    channel.publish(b"from the parent again", queue)
    bodies = [message.body for message in taken(channel, queue, 3)]
    assert bodies == [b"from the parent", b"from the child", b"from the parent again"]
    channel.declare_queue(exclusive.name, passive=True)
    assert connection.statistics().recoveries == 0


def test_heartbeats_go_on_while_the_program_is_busy(target: Target, name: str) -> None:
    with connect(f"{target.url}?heartbeat=1", robust=False, timeout_s=20) as connection:
        channel = connection.channel()
        time.sleep(3.5)
        channel.declare_queue(exclusive=True)


def test_the_death_of_a_node_is_not_noticed(
    target: Target, connection: Connection, channel: Channel, queue: str
) -> None:
    if not isinstance(target, Nodes) or len(target.members) == 1:
        pytest.skip("needs a cluster")
    deliveries = channel.consume(queue)
    channel.publish(b"before", queue)
    assert next(deliveries).ack()
    with channel.publisher(queue, window=50) as publisher:
        for number in range(400):
            if number == 200:
                target.at(connection.address).kill()
            publisher.send(b"%d" % number)

    assert publisher.confirmed == 400
    received: set[bytes] = set()
    while len(received - {b"before"}) < 400:
        message = next(deliveries)
        received.add(message.body)
        message.ack()
    assert connection.statistics().recoveries == 1


# Without a broker


def test_all_unreachable_hosts_are_listed_with_their_reasons() -> None:
    with pytest.raises(ConnectFailed) as raised:
        connect("amqp://127.0.0.1:1,127.0.0.1:2")

    assert raised.value.attempts == [
        ("127.0.0.1:1", "Connection refused"),
        ("127.0.0.1:2", "Connection refused"),
    ]


def test_a_wrong_password_is_refused(target: Target) -> None:
    with pytest.raises(AuthenticationRefused, match="Check user name 'guest'"):
        connect(target.url.replace("guest:guest@", "guest:wrong@"))


def test_use_after_close_says_so(target: Target) -> None:
    connection = connect(target.url)
    channel = connection.channel()
    connection.close()
    connection.close()
    with pytest.raises(ConnectionClosed, match="closed by the program"):
        channel.publish(b"late", "q")
    with pytest.raises(ConnectionClosed, match="closed by the program"):
        connection.channel()
