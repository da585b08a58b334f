"""What becomes of messages: they expire, are too many, are rejected, and go to dead letters."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

Names = Callable[[], str]
Message = tuple[Any, pika.BasicProperties, bytes]
Declare = Callable[..., str]

WITHIN_S = 15.0
SHORT_MS = 150


@pytest.fixture
def declare(channel: BlockingChannel, name: Names, durable: bool) -> Declare:
    """Declares a queue with arguments and returns its name."""

    def declare_queue(**arguments: object) -> str:
        queue = name()
        channel.queue_declare(
            queue,
            durable=durable,
            arguments={f"x-{key.replace('_', '-')}": value for key, value in arguments.items()},
        )
        return queue

    return declare_queue


def count(channel: BlockingChannel, queue: str) -> int:
    return int(channel.queue_declare(queue, passive=True).method.message_count)


def get(channel: BlockingChannel, queue: str) -> Message | None:
    method, properties, body = channel.basic_get(queue, auto_ack=True)
    return None if method is None else (method, properties, body)


def wait_get(channel: BlockingChannel, queue: str) -> Message:
    deadline = time.monotonic() + WITHIN_S
    while (message := get(channel, queue)) is None:
        assert time.monotonic() < deadline, f"{queue} stays empty"
        time.sleep(0.01)
    return message


def wait_count(channel: BlockingChannel, queue: str, wanted: int) -> None:
    deadline = time.monotonic() + WITHIN_S
    while count(channel, queue) != wanted:
        assert time.monotonic() < deadline, f"{count(channel, queue)} messages, not {wanted}"
        time.sleep(0.01)


def bodies(channel: BlockingChannel, queue: str) -> list[bytes]:
    return [body for _, _, body in iter(lambda: get(channel, queue), None)]


def publish(channel: BlockingChannel, queue: str, body: bytes = b"x", **properties: object) -> None:
    channel.basic_publish("", queue, body, pika.BasicProperties(**properties))


def outcomes(channel: BlockingChannel, queue: str, messages: list[bytes]) -> list[str]:
    """Publish with confirms, one at a time, and return "ack" or "nack" for each."""
    channel.confirm_delivery()
    results = []
    for body in messages:
        try:
            publish(channel, queue, body)
            results.append("ack")
        except pika.exceptions.NackError:
            results.append("nack")
    return results


# Time to live


def test_a_message_expires_after_the_queues_ttl(channel: BlockingChannel, declare: Declare) -> None:
    """message life: message TTL (queue)."""
    queue = declare(message_ttl=SHORT_MS)
    publish(channel, queue)
    publish(channel, queue)

    wait_count(channel, queue, 0)

    assert get(channel, queue) is None


def test_a_message_expires_after_its_own_expiration(
    channel: BlockingChannel, declare: Declare
) -> None:
    """message life: message TTL (per message)."""
    queue = declare()
    publish(channel, queue, b"short", expiration=str(SHORT_MS))
    publish(channel, queue, b"stays")

    wait_count(channel, queue, 1)

    assert bodies(channel, queue) == [b"stays"]


def test_the_shorter_of_both_counts(channel: BlockingChannel, declare: Declare) -> None:
    """message life: the smaller of queue and message TTL."""
    queue = declare(message_ttl=60_000)
    publish(channel, queue, expiration=str(SHORT_MS))
    wait_count(channel, queue, 0)
    other = declare(message_ttl=SHORT_MS)
    publish(channel, other, expiration="60000")
    wait_count(channel, other, 0)


def test_with_a_ttl_of_0_only_a_waiting_consumer_gets_it(
    connection: pika.BlockingConnection, channel: BlockingChannel, declare: Declare
) -> None:
    """message life: TTL 0."""
    queue = declare(message_ttl=0)
    publish(channel, queue, b"nobody waits")
    wait_count(channel, queue, 0)
    assert get(channel, queue) is None
    got: list[bytes] = []
    channel.basic_consume(queue, lambda *delivery: got.append(delivery[3]), auto_ack=True)
    publish(channel, queue, b"one waits")
    publish(channel, queue, b"one waits")

    wait_for(connection, lambda: len(got) == 2)

    assert got == [b"one waits"] * 2


def test_a_message_in_a_clients_hand_does_not_expire(
    channel: BlockingChannel, declare: Declare
) -> None:
    """message life: TTL counts for ready messages; what is given back too late is gone."""
    queue = declare(message_ttl=SHORT_MS)
    publish(channel, queue, b"held")
    method, _, body = channel.basic_get(queue)
    assert body == b"held"
    time.sleep(2 * SHORT_MS / 1000)

    channel.basic_nack(method.delivery_tag, requeue=True)

    wait_count(channel, queue, 0)
    assert get(channel, queue) is None


def test_an_unused_queue_is_deleted_after_x_expires(
    connection: pika.BlockingConnection, declare: Declare
) -> None:
    """queues: x-expires."""
    queue = declare(expires=2 * SHORT_MS)
    channel = connection.channel()
    publish(channel, queue)

    # A passive declare may count as use, so it must not be asked more often than it expires.
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as caught:
        for _ in range(20):
            connection.sleep(6 * SHORT_MS / 1000)
            channel.queue_declare(queue, passive=True)

    assert caught.value.reply_code == 404


def test_a_queue_with_a_consumer_does_not_expire(
    connection: pika.BlockingConnection, channel: BlockingChannel, declare: Declare
) -> None:
    """queues: x-expires counts without consumers only."""
    queue = declare(expires=2 * SHORT_MS)
    channel.basic_consume(queue, lambda *_: None, consumer_tag="t")

    connection.sleep(6 * SHORT_MS / 1000)

    assert count(channel, queue) == 0
    channel.basic_cancel("t")


# Limits


def test_the_oldest_go_when_there_are_too_many(channel: BlockingChannel, declare: Declare) -> None:
    """message life: x-max-length, drop-head."""
    queue = declare(max_length=2)

    assert outcomes(channel, queue, [b"0", b"1", b"2", b"3"]) == ["ack"] * 4

    assert count(channel, queue) == 2
    assert bodies(channel, queue) == [b"2", b"3"]


def test_only_ready_messages_count_for_the_limit(
    channel: BlockingChannel, declare: Declare
) -> None:
    """message life: x-max-length counts ready messages."""
    queue = declare(max_length=1)
    publish(channel, queue, b"held")
    wait_count(channel, queue, 1)
    method, _, _ = channel.basic_get(queue)
    publish(channel, queue, b"kept")
    wait_count(channel, queue, 1)

    channel.basic_ack(method.delivery_tag)

    assert bodies(channel, queue) == [b"kept"]


def test_bytes_of_bodies_are_limited(channel: BlockingChannel, declare: Declare) -> None:
    """message life: x-max-length-bytes counts bodies."""
    queue = declare(max_length_bytes=10)

    assert outcomes(channel, queue, [b"12345", b"67890", b"abc"]) == ["ack"] * 3

    assert bodies(channel, queue) == [b"67890", b"abc"]


@pytest.mark.parametrize("overflow", ["reject-publish", "reject-publish-dlx"])
def test_a_full_queue_refuses(overflow: str, channel: BlockingChannel, declare: Declare) -> None:
    """message life: overflow reject-publish and reject-publish-dlx."""
    dead = declare()
    queue = declare(
        max_length=2, overflow=overflow, dead_letter_exchange="", dead_letter_routing_key=dead
    )

    assert outcomes(channel, queue, [b"0", b"1", b"2", b"3"]) == ["ack", "ack", "nack", "nack"]

    if overflow == "reject-publish-dlx":
        wait_count(channel, dead, 2)
    letters = list(iter(lambda: get(channel, dead), None))
    told = [(body, properties.headers["x-death"][0]["reason"]) for _, properties, body in letters]
    wanted = [(b"2", "maxlen"), (b"3", "maxlen")] if overflow == "reject-publish-dlx" else []
    assert told == wanted
    assert bodies(channel, queue) == [b"0", b"1"]
    assert outcomes(channel, queue, [b"4"]) == ["ack"]


def test_a_full_queue_takes_more_when_a_consumer_holds_some(
    channel: BlockingChannel, declare: Declare
) -> None:
    """message life: reject-publish counts ready messages."""
    queue = declare(max_length=1, overflow="reject-publish")
    assert outcomes(channel, queue, [b"0"]) == ["ack"]
    method, _, _ = channel.basic_get(queue)

    assert outcomes(channel, queue, [b"1", b"2"]) == ["ack", "nack"]

    channel.basic_nack(method.delivery_tag, requeue=True)
    wait_count(channel, queue, 2)
    assert outcomes(channel, queue, [b"3"]) == ["nack"]


def test_bodies_beyond_the_limit_of_bytes_are_refused(
    channel: BlockingChannel, declare: Declare
) -> None:
    """message life: x-max-length-bytes with reject-publish."""
    queue = declare(max_length_bytes=10, overflow="reject-publish")

    results = outcomes(channel, queue, [b"12345", b"678901", b"12345", b""])

    assert results == ["ack", "nack", "ack", "ack"]


# Priorities


def test_higher_priorities_come_first(channel: BlockingChannel, declare: Declare) -> None:
    """message life: priority queue; above the maximum is the maximum, none is 0."""
    queue = declare(max_priority=3)
    for priority in (None, 0, 1, 9, 2, 3):
        publish(channel, queue, str(priority).encode(), priority=priority)
    wait_count(channel, queue, 6)

    assert bodies(channel, queue) == [b"9", b"3", b"2", b"1", b"None", b"0"]


def test_what_is_given_back_keeps_its_priority(channel: BlockingChannel, declare: Declare) -> None:
    """message life: priority queue and requeue."""
    queue = declare(max_priority=5)
    for priority in (1, 4, 4):
        publish(channel, queue, str(priority).encode(), priority=priority)
    wait_count(channel, queue, 3)
    method, _, body = channel.basic_get(queue)
    assert body == b"4"
    publish(channel, queue, b"5", priority=5)
    wait_count(channel, queue, 3)

    channel.basic_nack(method.delivery_tag, requeue=True)

    wait_count(channel, queue, 4)
    got = [
        (body, method.redelivered) for method, _, body in iter(lambda: get(channel, queue), None)
    ]
    assert got == [(b"5", False), (b"4", True), (b"4", False), (b"1", False)]


# Single active consumer


def test_one_consumer_at_a_time_gets_messages(
    connection: pika.BlockingConnection, channel: BlockingChannel, declare: Declare
) -> None:
    """consuming: single active consumer; the next takes over when the first is cancelled."""
    queue = declare(single_active_consumer=True)
    got: list[tuple[str, bytes]] = []
    for tag in ("1", "2"):
        channel.basic_consume(
            queue,
            lambda _c, method, _p, body: got.append((method.consumer_tag, body)),
            auto_ack=True,
            consumer_tag=tag,
        )
    for body in (b"0", b"1", b"2"):
        publish(channel, queue, body)
    wait_for(connection, lambda: len(got) == 3)
    channel.basic_cancel("1")
    publish(channel, queue, b"z")
    wait_for(connection, lambda: len(got) == 4)

    assert got == [("1", b"0"), ("1", b"1"), ("1", b"2"), ("2", b"z")]


def wait_for(connection: pika.BlockingConnection, is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not is_true():
        assert time.monotonic() < deadline
        connection.process_data_events(time_limit=0.05)


# Dead letters


def death(message: Message) -> dict[str, Any]:
    [first] = message[1].headers["x-death"]
    del first["time"]
    return dict(first)


def test_a_rejected_message_goes_to_the_dead_letter_exchange(
    channel: BlockingChannel, declare: Declare
) -> None:
    """message life: dead-letter exchange, x-death, expiration removed."""
    dead = declare()
    queue = declare(dead_letter_exchange="", dead_letter_routing_key=dead)
    publish(channel, queue, b"r", expiration="60000", headers={"own": 1}, content_type="text/plain")
    wait_count(channel, queue, 1)
    method, _, _ = channel.basic_get(queue)

    channel.basic_reject(method.delivery_tag, requeue=False)

    letter = wait_get(channel, dead)
    method, properties, body = letter
    assert (method.exchange, method.routing_key, method.redelivered) == ("", dead, False)
    assert (body, properties.expiration, properties.content_type) == (b"r", None, "text/plain")
    headers = dict(properties.headers)
    assert headers.pop("x-death")
    assert headers == {
        "own": 1,
        "x-first-death-exchange": "",
        "x-first-death-queue": queue,
        "x-first-death-reason": "rejected",
    }
    assert death(letter) == {
        "count": 1,
        "reason": "rejected",
        "queue": queue,
        "exchange": "",
        "routing-keys": [queue],
        "original-expiration": "60000",
    }
    assert count(channel, queue) == 0


@pytest.mark.parametrize("multiple", [False, True])
def test_nacked_messages_go_to_the_dead_letter_exchange(
    multiple: bool, channel: BlockingChannel, declare: Declare
) -> None:
    """message life: dead letters of basic.nack."""
    dead = declare()
    queue = declare(dead_letter_exchange="", dead_letter_routing_key=dead)
    for body in (b"0", b"1", b"2"):
        publish(channel, queue, body)
    wait_count(channel, queue, 3)
    tags = [channel.basic_get(queue)[0].delivery_tag for _ in range(3)]

    channel.basic_nack(tags[1], multiple=multiple, requeue=False)

    wanted = [b"0", b"1"] if multiple else [b"1"]
    wait_count(channel, dead, len(wanted))
    assert bodies(channel, dead) == wanted


def test_expired_and_dropped_messages_go_to_the_dead_letter_exchange(
    channel: BlockingChannel, declare: Declare
) -> None:
    """message life: reasons expired and maxlen."""
    dead = declare()
    queue = declare(
        dead_letter_exchange="",
        dead_letter_routing_key=dead,
        max_length=1,
        message_ttl=4 * SHORT_MS,
    )
    publish(channel, queue, b"0")
    publish(channel, queue, b"1")

    letters = [wait_get(channel, dead), wait_get(channel, dead)]

    assert [(body, death(m)["reason"]) for m in letters for body in [m[2]]] == [
        (b"0", "maxlen"),
        (b"1", "expired"),
    ]


def test_without_a_routing_key_of_its_own_a_dead_letter_keeps_its_keys(
    channel: BlockingChannel, declare: Declare, name: Names
) -> None:
    """message life: dead letters keep their routing key, through an exchange."""
    exchange = name()
    channel.exchange_declare(exchange, "direct")
    dead = declare()
    queue = declare(dead_letter_exchange=exchange)
    channel.queue_bind(dead, exchange, queue)
    publish(channel, queue, b"0", expiration="1")

    method, _, body = wait_get(channel, dead)

    assert (method.exchange, method.routing_key, body) == (exchange, queue, b"0")
    channel.exchange_delete(exchange)


def test_a_missing_dead_letter_exchange_is_silent(
    channel: BlockingChannel, declare: Declare, name: Names
) -> None:
    """message life: the dead-letter exchange may not exist."""
    queue = declare(dead_letter_exchange=name())
    publish(channel, queue, expiration="1")

    wait_count(channel, queue, 0)


def test_what_expires_in_a_circle_is_dropped(
    channel: BlockingChannel, declare: Declare, name: Names, durable: bool
) -> None:
    """message life: cycles of automatic deaths end."""
    queue = name()
    channel.queue_declare(
        queue,
        durable=durable,
        arguments={
            "x-message-ttl": SHORT_MS,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": queue,
        },
    )
    publish(channel, queue)

    wait_count(channel, queue, 0)

    time.sleep(2 * SHORT_MS / 1000)
    assert count(channel, queue) == 0


def test_a_retry_loop_with_a_rejection_goes_on_and_counts(
    channel: BlockingChannel, declare: Declare, name: Names, durable: bool
) -> None:
    """message life: x-death counts, the most recent first."""
    work, wait = name(), name()
    channel.queue_declare(
        work,
        durable=durable,
        arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": wait},
    )
    channel.queue_declare(
        wait,
        durable=durable,
        arguments={
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": work,
            "x-message-ttl": 20,
        },
    )
    publish(channel, work, b"again")
    for _ in range(2):
        deadline = time.monotonic() + WITHIN_S
        while (got := channel.basic_get(work))[0] is None:
            assert time.monotonic() < deadline
        channel.basic_reject(got[0].delivery_tag, requeue=False)

    _, properties, _ = wait_get(channel, work)

    deaths = [(d["count"], d["reason"], d["queue"]) for d in properties.headers["x-death"]]
    assert deaths == [(2, "expired", wait), (2, "rejected", work)]


def test_dead_letters_of_a_transaction_wait_for_the_commit(
    connection: pika.BlockingConnection, channel: BlockingChannel, declare: Declare
) -> None:
    """message life: rejecting in a transaction."""
    dead = declare()
    queue = declare(dead_letter_exchange="", dead_letter_routing_key=dead)
    publish(channel, queue, b"0")
    wait_count(channel, queue, 1)
    transactional = connection.channel()
    transactional.tx_select()
    method, _, _ = transactional.basic_get(queue)
    transactional.basic_reject(method.delivery_tag, requeue=False)
    assert count(channel, dead) == 0

    transactional.tx_commit()

    assert wait_get(channel, dead)[2] == b"0"


# Delivery limit


def test_a_quorum_queue_counts_deliveries_and_gives_up_at_the_limit(
    channel: BlockingChannel, declare: Declare, name: Names
) -> None:
    """consuming: delivery limit, x-delivery-count."""
    dead, queue = declare(), name()
    channel.queue_declare(
        queue,
        durable=True,
        arguments={
            "x-queue-type": "quorum",
            "x-delivery-limit": 2,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": dead,
        },
    )
    publish(channel, queue, b"0")
    seen = []
    deadline = time.monotonic() + WITHIN_S
    while count(channel, dead) == 0:
        assert time.monotonic() < deadline
        method, properties, _ = channel.basic_get(queue)
        if method is not None:
            seen.append((method.redelivered, properties.headers.get("x-delivery-count")))
            channel.basic_nack(method.delivery_tag, requeue=True)

    assert seen == [(False, 0), (True, 1), (True, 2)]
    assert death(wait_get(channel, dead))["reason"] == "delivery_limit"


def test_a_quorum_queue_counts_deliveries_without_a_limit_too(
    channel: BlockingChannel, name: Names
) -> None:
    """consuming: x-delivery-count, beside all that the message has."""
    queue = name()
    channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
    publish(channel, queue, b"bare")
    publish(channel, queue, b"rich", content_type="a/b", headers={"own": "x"}, app_id="app")
    wait_count(channel, queue, 2)
    method, properties, _ = channel.basic_get(queue)
    assert properties.headers == {"x-delivery-count": 0}
    _, properties, body = channel.basic_get(queue)
    assert (body, properties.content_type, properties.app_id) == (b"rich", "a/b", "app")
    assert properties.headers == {"own": "x", "x-delivery-count": 0}

    channel.basic_nack(method.delivery_tag, requeue=True)

    _, properties, body = wait_get(channel, queue)
    assert (body, properties.headers) == (b"bare", {"x-delivery-count": 1})


# Copies


def test_cc_and_bcc_are_routed_too(channel: BlockingChannel, declare: Declare) -> None:
    """exchanges: CC and BCC; each queue gets one copy, BCC is not shown."""
    queues = [declare() for _ in range(3)]
    publish(
        channel,
        queues[0],
        headers={"CC": [queues[1], queues[0]], "BCC": [queues[2]], "own": "x"},
    )

    for queue in queues:
        method, properties, _ = wait_get(channel, queue)
        assert method.routing_key == queues[0]
        assert properties.headers == {"CC": [queues[1], queues[0]], "own": "x"}
        assert get(channel, queue) is None
