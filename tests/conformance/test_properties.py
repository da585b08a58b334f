"""Message properties come back as they were sent, octet by octet."""

from __future__ import annotations

import datetime as dt
import decimal
import struct
from collections.abc import Callable

import amqp
import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests.conformance.conftest import Broker
from tests.support.wire import (
    BASIC_CONSUME,
    BASIC_CONSUME_OK,
    BASIC_DELIVER,
    BASIC_GET,
    BASIC_GET_OK,
    BASIC_RETURN,
    BODY,
    HEADER,
    METHOD,
    content_header,
    field,
    frame,
    longstr,
    publish,
    shortstr,
    table,
)

NESTED = table(field("x", b"I", struct.pack(">i", 1)), field("y", b"F", table()))
ARRAY = longstr(b"S" + longstr("a") + b"t\x01" + b"V" + b"A" + longstr(b"") + b"F" + NESTED)

# Not among them: f and d that are no numbers, at which RabbitMQ ends the connection with 541.
FIELDS: dict[str, bytes] = {
    "t boolean": field("k", b"t", b"\x01"),
    "t boolean false": field("k", b"t", b"\x00"),
    "b signed 8": field("k", b"b", struct.pack(">b", -128)),
    "B unsigned 8": field("k", b"B", b"\xff"),
    "s signed 16": field("k", b"s", struct.pack(">h", -32768)),
    "u unsigned 16": field("k", b"u", b"\xff\xff"),
    "I signed 32": field("k", b"I", struct.pack(">i", -(2**31))),
    "i unsigned 32": field("k", b"i", b"\xff\xff\xff\xff"),
    "l signed 64": field("k", b"l", struct.pack(">q", -(2**63))),
    "f float": field("k", b"f", struct.pack(">f", 1.5)),
    "d double": field("k", b"d", struct.pack(">d", -0.1)),
    "D decimal": field("k", b"D", b"\x02" + struct.pack(">i", 314)),
    "S long string": field("k", b"S", longstr(b"\xff\x00\xfe")),
    "S empty": field("k", b"S", longstr(b"")),
    "A array": field("k", b"A", ARRAY),
    "A empty": field("k", b"A", longstr(b"")),
    "T timestamp": field("k", b"T", struct.pack(">Q", 2**40)),
    "F table": field("k", b"F", NESTED),
    "x octets": field("k", b"x", longstr(b"\x00\x01\xff")),
    "V void": field("k", b"V", b""),
    "same name twice": field("k", b"t", b"\x01") + field("k", b"t", b"\x00"),
    "empty name": field("", b"t", b"\x01"),
    "longest name": field("n" * 255, b"V", b""),
}

# The 14 properties in the order of their flags, from bit 15 down.
PROPERTIES: dict[str, bytes] = {
    "content-type": shortstr("text/plain"),
    "content-encoding": shortstr("utf-8"),
    "headers": table(field("k", b"t", b"\x01")),
    "delivery-mode": b"\x02",
    "priority": b"\x09",
    "correlation-id": shortstr("c" * 255),
    "reply-to": shortstr("r"),
    "expiration": shortstr("60000"),
    "message-id": shortstr("m"),
    "timestamp": struct.pack(">Q", 2**33),
    "type": shortstr("t"),
    "user-id": shortstr("guest"),
    "app-id": shortstr("a"),
    "cluster-id": shortstr("k"),
}
ALL_FLAGS = sum(1 << (15 - bit) for bit in range(len(PROPERTIES)))


def flag(name: str) -> int:
    return 1 << (15 - list(PROPERTIES).index(name))


def content(header: bytes, body: bytes) -> bytes:
    return frame(HEADER, 1, header) + frame(BODY, 1, body)


def round_trip(broker: Broker, queue: str, header: bytes) -> bytes:
    """Publish a body of one octet with this header to a new queue; return what comes back."""
    with broker.open_wire() as wire:
        wire.declare_queue(queue, bits=0b00010)
        wire.send(frame(METHOD, 1, publish("", queue)) + content(header, b"x"))
        wire.send_method(1, BASIC_GET, struct.pack(">H", 0) + shortstr(queue) + b"\x01")
        wire.expect(BASIC_GET_OK, 1)
        return wire.expect_content()[0]


@pytest.mark.parametrize("kind", FIELDS)
def test_header_of_every_type_comes_back_bit_for_bit(
    broker: Broker, name: Callable[[], str], kind: str
) -> None:
    """publishing: 14 basic properties (header table types)."""
    header = content_header(1, flag("headers"), table(FIELDS[kind]))

    assert round_trip(broker, name(), header) == header


def test_headers_keep_their_order(broker: Broker, name: Callable[[], str]) -> None:
    """publishing: 14 basic properties."""
    fields = [field(key, b"I", struct.pack(">i", 1)) for key in ("z", "a", "m", "B")]
    header = content_header(1, flag("headers"), table(*fields))

    assert round_trip(broker, name(), header) == header


@pytest.mark.parametrize("one", PROPERTIES)
def test_property_alone_comes_back_bit_for_bit(
    broker: Broker, name: Callable[[], str], one: str
) -> None:
    """publishing: 14 basic properties."""
    value = shortstr(broker.user) if one == "user-id" else PROPERTIES[one]
    header = content_header(1, flag(one), value)

    assert round_trip(broker, name(), header) == header


@pytest.mark.parametrize("which", ["none", "all"])
def test_no_and_all_properties_come_back_bit_for_bit(
    broker: Broker, name: Callable[[], str], which: str
) -> None:
    """publishing: 14 basic properties, absent."""
    values = {**PROPERTIES, "user-id": shortstr(broker.user)}
    everything = content_header(1, ALL_FLAGS, b"".join(values.values()))
    header = everything if which == "all" else content_header(1)

    assert round_trip(broker, name(), header) == header


@pytest.mark.parametrize("one", ["content-type", "correlation-id", "message-id", "headers"])
def test_empty_property_is_not_an_absent_one(
    broker: Broker, name: Callable[[], str], one: str
) -> None:
    """publishing: 14 basic properties, absent vs empty."""
    header = content_header(1, flag(one), table() if one == "headers" else shortstr(""))

    assert round_trip(broker, name(), header) == header


def test_delivery_and_return_carry_the_header_as_it_was_sent(
    broker: Broker, name: Callable[[], str]
) -> None:
    """publishing: 14 basic properties; exchanges: mandatory."""
    header = content_header(1, flag("headers"), table(*FIELDS.values()))
    queue = name()
    with broker.open_wire() as wire:
        wire.declare_queue(queue)
        consume = struct.pack(">H", 0) + shortstr(queue) + shortstr("t") + b"\x02" + table()
        wire.send_method(1, BASIC_CONSUME, consume)
        wire.expect(BASIC_CONSUME_OK, 1)
        wire.send(frame(METHOD, 1, publish("", queue)) + content(header, b"x"))
        delivered = wire.expect(BASIC_DELIVER, 1)
        assert wire.expect_content()[:2] == (header, b"x")
        wire.send(frame(METHOD, 1, publish("", queue + "-no", bits=1)) + content(header, b"x"))
        returned = wire.expect(BASIC_RETURN, 1)
        assert wire.expect_content()[:2] == (header, b"x")

    tag = struct.pack(">Q", 1)
    assert delivered == shortstr("t") + tag + b"\x00" + shortstr("") + shortstr(queue)
    reply = struct.pack(">H", 312) + shortstr("NO_ROUTE")
    assert returned == reply + shortstr("") + shortstr(queue + "-no")


def test_pika_gets_its_properties_back(channel: BlockingChannel, queue: str) -> None:
    """publishing: 14 basic properties, through pika's codec."""
    sent = pika.BasicProperties(
        content_type="text/plain",
        content_encoding="utf-8",
        headers={
            "int": 1,
            "negative": -(2**40),
            "text": "hé",
            "none": None,
            "list": [1, "two", {"three": 3}],
            "time": dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC),
            "decimal": decimal.Decimal("3.14"),
            "bytes": b"\x00\xff",
        },
        delivery_mode=2,
        priority=3,
        correlation_id="c",
        reply_to="r",
        message_id="m",
        timestamp=1_700_000_000,
        type="t",
        app_id="a",
        cluster_id="k",
    )
    channel.basic_publish("", queue, b"x", sent)

    got = channel.basic_get(queue, auto_ack=True)[1]

    assert got == sent


def test_py_amqp_gets_its_properties_back(broker: Broker, name: Callable[[], str]) -> None:
    """publishing: 14 basic properties, through py-amqp's codec."""
    queue = name()
    headers = {"a": 1, "b": "text", "c": [1, 2, {"d": None}], "e": True, "f": 2.5}
    with amqp.Connection(
        f"{broker.host}:{broker.port}", broker.user, broker.password
    ) as connection:
        channel = connection.channel()
        channel.queue_declare(queue, auto_delete=False)
        message = amqp.Message(
            b"x", application_headers=headers, priority=5, correlation_id="c", delivery_mode=1
        )
        channel.basic_publish(message, "", queue)
        got = channel.basic_get(queue, no_ack=True)

    expected = {
        "application_headers": headers,
        "priority": 5,
        "correlation_id": "c",
        "delivery_mode": 1,
    }
    assert got.properties == expected
