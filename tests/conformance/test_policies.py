"""Policies: what they make of queues and exchanges that are there, and of their messages."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests.conformance.conftest import Broker

Names = Callable[[], str]
Setter = Callable[..., Callable[[], None]]

WITHIN_S = 30.0
PAUSE_S = 0.05
SHORT_MS = 200


@pytest.fixture
def set_policy(broker: Broker) -> Iterator[Setter]:
    """Sets a policy for the name that it is given; what it returns clears it."""
    numbers = itertools.count()
    there: dict[str, str] = {}

    def set_one(
        name: str, *, kind: str = "policy", priority: int = 0, **settings: object
    ) -> Callable[[], None]:
        policy = f"{name}-{next(numbers)}"
        definition = {key.replace("_", "-"): value for key, value in settings.items()}
        options = ("--priority", str(priority))
        broker.ctl(f"set_{kind}", *options, policy, f"^{name}$", json.dumps(definition))
        there[policy] = kind

        def clear() -> None:
            broker.ctl(f"clear_{there.pop(policy)}", policy)

        return clear

    yield set_one
    for policy, kind in there.items():
        broker.ctl(f"clear_{kind}", policy)


def count(channel: BlockingChannel, queue: str) -> int:
    return int(channel.queue_declare(queue, passive=True).method.message_count)


def wait_count(channel: BlockingChannel, queue: str, wanted: int) -> None:
    deadline = time.monotonic() + WITHIN_S
    while count(channel, queue) != wanted:
        assert time.monotonic() < deadline, f"{count(channel, queue)} messages, not {wanted}"
        time.sleep(PAUSE_S)


def publish(channel: BlockingChannel, queue: str, *bodies: bytes, exchange: str = "") -> None:
    for body in bodies:
        channel.basic_publish(exchange, queue, body)


def bodies_in(channel: BlockingChannel, queue: str) -> list[bytes]:
    found: list[bytes] = []
    while (message := channel.basic_get(queue, auto_ack=True))[0] is not None:
        found.append(message[2])
    return found


def wait_message(channel: BlockingChannel, queue: str) -> tuple[Any, Any, bytes]:
    deadline = time.monotonic() + WITHIN_S
    while True:
        method, properties, body = channel.basic_get(queue, auto_ack=True)
        if method is not None:
            return method, properties, body
        assert time.monotonic() < deadline, f"{queue} stays empty"
        time.sleep(PAUSE_S)


@pytest.fixture
def dead(channel: BlockingChannel, name: Names) -> str:
    """A queue for dead letters."""
    queue = name()
    channel.queue_declare(queue, durable=True)
    return queue


def test_a_lower_limit_sends_the_oldest_of_what_is_there_to_the_dead_letters(
    channel: BlockingChannel, queue: str, dead: str, set_policy: Setter
) -> None:
    publish(channel, queue, b"1", b"2", b"3", b"4", b"5")
    wait_count(channel, queue, 5)

    set_policy(queue, max_length=2, dead_letter_exchange="", dead_letter_routing_key=dead)

    wait_count(channel, dead, 3)
    _, properties, body = wait_message(channel, dead)
    assert body == b"1"
    assert properties.headers["x-death"][0]["reason"] == "maxlen"
    assert bodies_in(channel, queue) == [b"4", b"5"]


def test_a_limit_of_bytes_counts_what_was_there_before_it(
    channel: BlockingChannel, queue: str, set_policy: Setter
) -> None:
    publish(channel, queue, *(b"%d----" % number for number in range(5)))
    wait_count(channel, queue, 5)

    set_policy(queue, max_length_bytes=12)

    wait_count(channel, queue, 2)
    assert bodies_in(channel, queue) == [b"3----", b"4----"]


def test_a_cleared_limit_limits_no_more(
    channel: BlockingChannel, queue: str, set_policy: Setter
) -> None:
    clear = set_policy(queue, max_length=1)
    publish(channel, queue, b"1", b"2")
    wait_count(channel, queue, 1)

    clear()
    deadline = time.monotonic() + WITHIN_S
    while count(channel, queue) < 3:
        assert time.monotonic() < deadline
        publish(channel, queue, b"more")
        time.sleep(PAUSE_S)


def test_a_policy_holds_for_queues_that_are_declared_later(
    channel: BlockingChannel, name: Names, durable: bool, set_policy: Setter
) -> None:
    queue = name()
    set_policy(queue, max_length=2)

    channel.queue_declare(queue, durable=durable)
    publish(channel, queue, b"1", b"2", b"3")

    wait_count(channel, queue, 2)
    assert bodies_in(channel, queue) == [b"2", b"3"]


def test_a_time_to_live_counts_for_what_comes_from_then_on(
    channel: BlockingChannel, queue: str, dead: str, set_policy: Setter
) -> None:
    publish(channel, queue, b"before")
    wait_count(channel, queue, 1)
    set_policy(queue, message_ttl=SHORT_MS, dead_letter_exchange="", dead_letter_routing_key=dead)
    assert wait_message(channel, queue)[2] == b"before"

    # One that comes before the queue heard of the policy would stay.
    deadline = time.monotonic() + WITHIN_S
    while count(channel, dead) == 0:
        assert time.monotonic() < deadline
        bodies_in(channel, queue)
        publish(channel, queue, b"after")
        time.sleep(3 * SHORT_MS / 1000)
    _, properties, body = wait_message(channel, dead)
    assert (body, properties.headers["x-death"][0]["reason"]) == (b"after", "expired")


def test_a_message_keeps_its_time_to_live_when_the_policy_is_cleared(
    channel: BlockingChannel, name: Names, durable: bool, set_policy: Setter
) -> None:
    queue = name()
    clear = set_policy(queue, message_ttl=1500)
    channel.queue_declare(queue, durable=durable)
    publish(channel, queue, b"x")
    wait_count(channel, queue, 1)

    clear()

    wait_count(channel, queue, 0)


def test_what_is_rejected_goes_to_the_dead_letter_exchange_of_the_policy(
    channel: BlockingChannel, name: Names, durable: bool, dead: str, set_policy: Setter
) -> None:
    queue = name()
    set_policy(queue, dead_letter_exchange="", dead_letter_routing_key=dead)
    channel.queue_declare(queue, durable=durable)
    publish(channel, queue, b"x")
    wait_count(channel, queue, 1)

    method, _, _ = channel.basic_get(queue)
    channel.basic_reject(method.delivery_tag, requeue=False)

    assert wait_message(channel, dead)[2] == b"x"


def test_of_numbers_the_smaller_counts_and_of_texts_the_argument(
    channel: BlockingChannel, name: Names, durable: bool, dead: str, set_policy: Setter
) -> None:
    low, high = name(), name()
    for queue, own, by_policy in ((low, 2, 5), (high, 5, 2)):
        set_policy(
            queue,
            max_length=by_policy,
            dead_letter_exchange="",
            dead_letter_routing_key="nowhere",
        )
        channel.queue_declare(
            queue,
            durable=durable,
            arguments={
                "x-max-length": own,
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": dead,
            },
        )
        publish(channel, queue, b"1", b"2", b"3")

        wait_count(channel, queue, 2)
        assert wait_message(channel, dead)[2] == b"1"


def test_an_operator_policy_limits_whatever_the_policy_says(
    channel: BlockingChannel, name: Names, durable: bool, set_policy: Setter
) -> None:
    queue = name()
    set_policy(queue, max_length=9)
    clear = set_policy(queue, kind="operator_policy", max_length=1)
    channel.queue_declare(queue, durable=durable)
    publish(channel, queue, b"1", b"2", b"3")
    wait_count(channel, queue, 1)

    clear()
    set_policy(queue, kind="operator_policy", max_length=20)
    deadline = time.monotonic() + WITHIN_S
    while count(channel, queue) < 9:
        assert time.monotonic() < deadline
        publish(channel, queue, b"more")
        time.sleep(PAUSE_S)
    publish(channel, queue, *[b"more"] * 5)
    wait_count(channel, queue, 9)


def test_one_policy_counts_the_one_with_the_highest_priority(
    channel: BlockingChannel, name: Names, durable: bool, set_policy: Setter
) -> None:
    queue = name()
    clear = set_policy(queue, priority=9, max_length=4)
    set_policy(queue, priority=3, max_length=2)
    channel.queue_declare(queue, durable=durable)
    publish(channel, queue, *[b"x"] * 5)
    wait_count(channel, queue, 4)

    clear()

    wait_count(channel, queue, 2)


def test_a_full_queue_refuses_publishes_by_the_policy(
    channel: BlockingChannel, name: Names, durable: bool, set_policy: Setter
) -> None:
    queue = name()
    set_policy(queue, max_length=1, overflow="reject-publish")
    channel.queue_declare(queue, durable=durable)
    channel.confirm_delivery()
    channel.basic_publish("", queue, b"fits")

    def publish_until_refused() -> None:
        # RabbitMQ's quorum queues take a few more than they should.
        for _ in range(20):
            channel.basic_publish("", queue, b"does not")

    with pytest.raises(pika.exceptions.NackError):
        publish_until_refused()


def test_a_queue_expires_by_a_policy_that_is_set_later(
    connection: pika.BlockingConnection, queue: str, set_policy: Setter
) -> None:
    set_policy(queue, expires=SHORT_MS)

    deadline = time.monotonic() + WITHIN_S
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="no queue"):
        while time.monotonic() < deadline:
            time.sleep(3 * SHORT_MS / 1000)  # each look is a use
            connection.channel().queue_declare(queue, passive=True)


def test_what_comes_back_too_often_goes_by_the_policys_limit(
    channel: BlockingChannel, name: Names, dead: str, set_policy: Setter
) -> None:
    queue = name()
    set_policy(queue, delivery_limit=2, dead_letter_exchange="", dead_letter_routing_key=dead)
    channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
    publish(channel, queue, b"poison")

    deadline = time.monotonic() + WITHIN_S
    while count(channel, dead) == 0:
        assert time.monotonic() < deadline
        method, _, _ = channel.basic_get(queue)
        if method is not None:
            channel.basic_reject(method.delivery_tag, requeue=True)
    assert wait_message(channel, dead)[2] == b"poison"


def test_an_exchange_has_the_alternate_exchange_of_the_policy_from_then_on(
    channel: BlockingChannel, name: Names, set_policy: Setter
) -> None:
    exchange, queue = name(), name()
    channel.exchange_declare(exchange, "direct", durable=True)
    channel.queue_declare(queue, durable=True)
    channel.queue_bind(queue, "amq.fanout")

    clear = set_policy(exchange, alternate_exchange="amq.fanout")
    deadline = time.monotonic() + WITHIN_S
    while count(channel, queue) == 0:
        assert time.monotonic() < deadline
        publish(channel, "no binding", b"x", exchange=exchange)
        time.sleep(PAUSE_S)
    clear()

    deadline = time.monotonic() + WITHIN_S
    while True:
        bodies_in(channel, queue)
        publish(channel, "no binding", b"x", exchange=exchange)
        time.sleep(PAUSE_S)
        if count(channel, queue) == 0:
            break
        assert time.monotonic() < deadline
