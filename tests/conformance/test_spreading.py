"""Exchanges that spread messages over their queues: consistent hash and random."""

from __future__ import annotations

from collections.abc import Callable

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests.conformance.conftest import Broker

Names = Callable[[], str]
COUNT = 2_000


@pytest.fixture
def offers(broker: Broker) -> Callable[[str], None]:
    """Skips the test where the broker has no exchanges of a type: RabbitMQ needs plugins."""

    def look(kind: str) -> None:
        connection = broker.connect()
        try:
            connection.channel().exchange_declare("t-offered", kind, auto_delete=True)
        except pika.exceptions.ConnectionClosedByBroker:
            pytest.skip(f"there is no exchange type {kind}")
        connection.channel().exchange_delete("t-offered")
        connection.close()

    return look


def counts(channel: BlockingChannel, queues: list[str]) -> list[int]:
    return [channel.queue_declare(q, passive=True).method.message_count for q in queues]


@pytest.fixture
def spread(channel: BlockingChannel, name: Names) -> Callable[..., tuple[str, list[str]]]:
    """Makes an exchange of a type, and queues that are bound to it with these keys."""

    def make(kind: str, *keys: str, **arguments: str) -> tuple[str, list[str]]:
        exchange, queues = name(), [name() for _ in keys]
        given = {key.replace("_", "-", 1): value for key, value in arguments.items()}
        channel.exchange_declare(exchange, kind, arguments=given)
        for queue, key in zip(queues, keys, strict=True):
            channel.queue_declare(queue)
            channel.queue_bind(queue, exchange, key)
        channel.confirm_delivery()
        return exchange, queues

    return make


def test_a_consistent_hash_shares_keys_out_by_weight(
    offers: Callable[[str], None],
    channel: BlockingChannel,
    spread: Callable[..., tuple[str, list[str]]],
) -> None:
    """exchanges: x-consistent-hash."""
    offers("x-consistent-hash")
    exchange, queues = spread("x-consistent-hash", "10", "10", "20")

    for n in range(COUNT):
        channel.basic_publish(exchange, str(n), b"")

    one, other, twice = counts(channel, queues)
    assert one + other + twice == COUNT
    assert one == pytest.approx(COUNT / 4, rel=0.25)
    assert other == pytest.approx(COUNT / 4, rel=0.25)
    assert twice == pytest.approx(COUNT / 2, rel=0.25)


def test_one_key_goes_to_one_queue(
    offers: Callable[[str], None],
    channel: BlockingChannel,
    spread: Callable[..., tuple[str, list[str]]],
) -> None:
    """exchanges: x-consistent-hash."""
    offers("x-consistent-hash")
    exchange, queues = spread("x-consistent-hash", "1", "1", "1")

    for _ in range(50):
        channel.basic_publish(exchange, "same", b"")

    assert [0, 0, 50] == sorted(counts(channel, queues))


@pytest.mark.parametrize("hashed", ["header", "property"])
def test_a_header_or_a_property_is_hashed(
    offers: Callable[[str], None],
    channel: BlockingChannel,
    spread: Callable[..., tuple[str, list[str]]],
    hashed: str,
) -> None:
    """exchanges: x-consistent-hash."""
    offers("x-consistent-hash")
    arguments = {"header": {"hash_header": "id"}, "property": {"hash_property": "message_id"}}
    exchange, queues = spread("x-consistent-hash", "1", "1", **arguments[hashed])

    for n in range(100):
        properties = pika.BasicProperties(headers={"id": f"v{n}"}, message_id=f"v{n}")
        channel.basic_publish(exchange, "same", b"", properties)

    assert all(count > 20 for count in counts(channel, queues))


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("abc", 'The binding key must be an integer: <<"abc">>'),
        ("0", "The binding key must be greater than 0"),
    ],
)
def test_a_binding_without_a_weight_is_refused(
    offers: Callable[[str], None],
    channel: BlockingChannel,
    spread: Callable[..., tuple[str, list[str]]],
    key: str,
    text: str,
) -> None:
    """exchanges: x-consistent-hash."""
    offers("x-consistent-hash")
    exchange, (queue,) = spread("x-consistent-hash", "1")

    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as caught:
        channel.queue_bind(queue, exchange, key)

    assert caught.value.reply_code == 406
    assert caught.value.reply_text == f"PRECONDITION_FAILED - {text}"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"hash-header": "h", "hash-property": "message_id"},
            "hash-header and hash-property are mutually exclusive",
        ),
        ({"hash-property": "nope"}, "Unsupported property: nope"),
    ],
)
def test_what_cannot_be_hashed_is_refused(
    offers: Callable[[str], None],
    channel: BlockingChannel,
    name: Names,
    arguments: dict[str, str],
    text: str,
) -> None:
    """exchanges: x-consistent-hash."""
    offers("x-consistent-hash")

    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as caught:
        channel.exchange_declare(name(), "x-consistent-hash", arguments=arguments)

    assert caught.value.reply_code == 406
    assert caught.value.reply_text == f"PRECONDITION_FAILED - {text}"


def test_a_random_exchange_shares_one_key_out(
    offers: Callable[[str], None],
    channel: BlockingChannel,
    spread: Callable[..., tuple[str, list[str]]],
) -> None:
    """exchanges: x-random."""
    offers("x-random")
    exchange, queues = spread("x-random", "", "ignored", "")

    for _ in range(600):
        channel.basic_publish(exchange, "same", b"")

    found = counts(channel, queues)
    assert sum(found) == 600
    assert all(120 < count < 280 for count in found)


def test_a_modulus_shares_keys_out(
    offers: Callable[[str], None],
    channel: BlockingChannel,
    spread: Callable[..., tuple[str, list[str]]],
) -> None:
    """exchanges: x-modulus-hash."""
    offers("x-modulus-hash")
    exchange, queues = spread("x-modulus-hash", "", "", "")

    for n in range(300):
        channel.basic_publish(exchange, str(n), b"")
        channel.basic_publish(exchange, "same", b"")

    found = counts(channel, queues)
    assert sum(found) == 600
    assert max(found) > 300
    assert all(count > 50 for count in found)
