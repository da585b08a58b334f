"""The tables of AMQP 0-9-1 as RabbitMQ speaks it, from which `generate.py` makes `spec.py`.

Names, ids, argument types and defaults are those of the specification, with RabbitMQ's extensions
(basic.nack, confirm, exchange.bind, connection.blocked, connection.update-secret, basic.cancel in
both directions) and RabbitMQ's peculiarities: exchange.unbind-ok is method 51, not 41.
This file holds data only, so that a reader can check it against the specification line by line.

Spec: AMQP 0-9-1 XML; the extensions as RabbitMQ 3.10 frames them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

FRAME_TYPES: Final = {"METHOD": 1, "HEADER": 2, "BODY": 3, "HEARTBEAT": 8}
FRAME_END: Final = 0xCE
FRAME_MIN_SIZE: Final = 4096
PROTOCOL_HEADER: Final = b"AMQP\x00\x00\x09\x01"

# Reply code -> name and scope. The scope is fixed by the code alone, as in RabbitMQ: an error
# with scope "channel" closes the channel (on channel 0: the connection), the rest the connection.
REPLY_CODES: Final[dict[int, tuple[str, str]]] = {
    200: ("REPLY_SUCCESS", "connection"),
    311: ("CONTENT_TOO_LARGE", "channel"),
    312: ("NO_ROUTE", "channel"),
    313: ("NO_CONSUMERS", "channel"),
    320: ("CONNECTION_FORCED", "connection"),
    402: ("INVALID_PATH", "connection"),
    403: ("ACCESS_REFUSED", "channel"),
    404: ("NOT_FOUND", "channel"),
    405: ("RESOURCE_LOCKED", "channel"),
    406: ("PRECONDITION_FAILED", "channel"),
    501: ("FRAME_ERROR", "connection"),
    502: ("SYNTAX_ERROR", "connection"),
    503: ("COMMAND_INVALID", "connection"),
    504: ("CHANNEL_ERROR", "connection"),
    505: ("UNEXPECTED_FRAME", "connection"),
    506: ("RESOURCE_ERROR", "connection"),
    530: ("NOT_ALLOWED", "connection"),
    540: ("NOT_IMPLEMENTED", "connection"),
    541: ("INTERNAL_ERROR", "connection"),
}

# The basic class's properties in wire order; the first owns bit 15 of the flags word.
PROPERTIES: Final[tuple[tuple[str, str], ...]] = (
    ("content_type", "shortstr"),
    ("content_encoding", "shortstr"),
    ("headers", "table"),
    ("delivery_mode", "octet"),
    ("priority", "octet"),
    ("correlation_id", "shortstr"),
    ("reply_to", "shortstr"),
    ("expiration", "shortstr"),
    ("message_id", "shortstr"),
    ("timestamp", "longlong"),
    ("type", "shortstr"),
    ("user_id", "shortstr"),
    ("app_id", "shortstr"),
    ("cluster_id", "shortstr"),
)


class Definition(NamedTuple):
    """One method: `arguments` is "name:type[=default] …", `sender` is client, server or both."""

    class_id: int
    method_id: int
    name: str
    sender: str
    arguments: str = ""
    synchronous: bool = False
    has_content: bool = False


def _ask(class_id: int, method_id: int, name: str, sender: str, arguments: str = "") -> Definition:
    """A method that its sender expects to be answered."""
    return Definition(class_id, method_id, name, sender, arguments, synchronous=True)


def _tell(class_id: int, method_id: int, name: str, sender: str, arguments: str = "") -> Definition:
    """An answer, or a method that has none."""
    return Definition(class_id, method_id, name, sender, arguments)


def _content(class_id: int, method_id: int, name: str, sender: str, arguments: str) -> Definition:
    """A method that a content header and body follow."""
    return Definition(class_id, method_id, name, sender, arguments, has_content=True)


_CLOSE = "reply_code:short reply_text:shortstr= class_id:short method_id:short"
_TUNE = "channel_max:short=0 frame_max:long=0 heartbeat:short=0"
_EXCHANGE_BIND = (
    "ticket:short=0 destination:shortstr source:shortstr routing_key:shortstr= nowait:bit "
    "arguments:table="
)

METHODS: Final[tuple[Definition, ...]] = (
    _ask(
        10,
        10,
        "connection.start",
        "server",
        "version_major:octet=0 version_minor:octet=9 server_properties:table "
        "mechanisms:longstr=PLAIN locales:longstr=en_US",
    ),
    _tell(
        10,
        11,
        "connection.start-ok",
        "client",
        "client_properties:table mechanism:shortstr=PLAIN response:longstr locale:shortstr=en_US",
    ),
    _ask(10, 20, "connection.secure", "server", "challenge:longstr"),
    _tell(10, 21, "connection.secure-ok", "client", "response:longstr"),
    _ask(10, 30, "connection.tune", "server", _TUNE),
    _tell(10, 31, "connection.tune-ok", "client", _TUNE),
    _ask(
        10,
        40,
        "connection.open",
        "client",
        "virtual_host:shortstr=/ capabilities:shortstr= insist:bit",
    ),
    _tell(10, 41, "connection.open-ok", "server", "known_hosts:shortstr="),
    _ask(10, 50, "connection.close", "both", _CLOSE),
    _tell(10, 51, "connection.close-ok", "both"),
    _tell(10, 60, "connection.blocked", "server", "reason:shortstr="),
    _tell(10, 61, "connection.unblocked", "server"),
    _ask(10, 70, "connection.update-secret", "client", "new_secret:longstr reason:shortstr"),
    _tell(10, 71, "connection.update-secret-ok", "server"),
    _ask(20, 10, "channel.open", "client", "out_of_band:shortstr="),
    _tell(20, 11, "channel.open-ok", "server", "channel_id:longstr="),
    _ask(20, 20, "channel.flow", "both", "active:bit=1"),
    # RabbitMQ never sends flow, so a flow-ok from a client answers nothing and is refused.
    _tell(20, 21, "channel.flow-ok", "server", "active:bit=1"),
    _ask(20, 40, "channel.close", "both", _CLOSE),
    _tell(20, 41, "channel.close-ok", "both"),
    # Class access left the specification in 0-9-1; RabbitMQ still answers it with ticket 1.
    _ask(
        30,
        10,
        "access.request",
        "client",
        "realm:shortstr=/data exclusive:bit passive:bit=1 active:bit=1 write:bit=1 read:bit=1",
    ),
    _tell(30, 11, "access.request-ok", "server", "ticket:short=1"),
    _ask(
        40,
        10,
        "exchange.declare",
        "client",
        "ticket:short=0 exchange:shortstr type:shortstr=direct passive:bit durable:bit "
        "auto_delete:bit internal:bit nowait:bit arguments:table=",
    ),
    _tell(40, 11, "exchange.declare-ok", "server"),
    _ask(
        40,
        20,
        "exchange.delete",
        "client",
        "ticket:short=0 exchange:shortstr if_unused:bit nowait:bit",
    ),
    _tell(40, 21, "exchange.delete-ok", "server"),
    _ask(40, 30, "exchange.bind", "client", _EXCHANGE_BIND),
    _tell(40, 31, "exchange.bind-ok", "server"),
    _ask(40, 40, "exchange.unbind", "client", _EXCHANGE_BIND),
    _tell(40, 51, "exchange.unbind-ok", "server"),
    _ask(
        50,
        10,
        "queue.declare",
        "client",
        "ticket:short=0 queue:shortstr= passive:bit durable:bit exclusive:bit auto_delete:bit "
        "nowait:bit arguments:table=",
    ),
    _tell(
        50,
        11,
        "queue.declare-ok",
        "server",
        "queue:shortstr message_count:long consumer_count:long",
    ),
    _ask(
        50,
        20,
        "queue.bind",
        "client",
        "ticket:short=0 queue:shortstr= exchange:shortstr routing_key:shortstr= nowait:bit "
        "arguments:table=",
    ),
    _tell(50, 21, "queue.bind-ok", "server"),
    _ask(50, 30, "queue.purge", "client", "ticket:short=0 queue:shortstr= nowait:bit"),
    _tell(50, 31, "queue.purge-ok", "server", "message_count:long"),
    _ask(
        50,
        40,
        "queue.delete",
        "client",
        "ticket:short=0 queue:shortstr= if_unused:bit if_empty:bit nowait:bit",
    ),
    _tell(50, 41, "queue.delete-ok", "server", "message_count:long"),
    _ask(
        50,
        50,
        "queue.unbind",
        "client",
        "ticket:short=0 queue:shortstr= exchange:shortstr routing_key:shortstr= arguments:table=",
    ),
    _tell(50, 51, "queue.unbind-ok", "server"),
    _ask(
        60, 10, "basic.qos", "client", "prefetch_size:long=0 prefetch_count:short=0 is_global:bit"
    ),
    _tell(60, 11, "basic.qos-ok", "server"),
    _ask(
        60,
        20,
        "basic.consume",
        "client",
        "ticket:short=0 queue:shortstr= consumer_tag:shortstr= no_local:bit no_ack:bit "
        "exclusive:bit nowait:bit arguments:table=",
    ),
    _tell(60, 21, "basic.consume-ok", "server", "consumer_tag:shortstr"),
    _ask(60, 30, "basic.cancel", "both", "consumer_tag:shortstr nowait:bit"),
    _tell(60, 31, "basic.cancel-ok", "both", "consumer_tag:shortstr"),
    _content(
        60,
        40,
        "basic.publish",
        "client",
        "ticket:short=0 exchange:shortstr= routing_key:shortstr= mandatory:bit immediate:bit",
    ),
    _content(
        60,
        50,
        "basic.return",
        "server",
        "reply_code:short reply_text:shortstr= exchange:shortstr routing_key:shortstr",
    ),
    _content(
        60,
        60,
        "basic.deliver",
        "server",
        "consumer_tag:shortstr delivery_tag:longlong redelivered:bit exchange:shortstr "
        "routing_key:shortstr",
    ),
    _ask(60, 70, "basic.get", "client", "ticket:short=0 queue:shortstr= no_ack:bit"),
    _content(
        60,
        71,
        "basic.get-ok",
        "server",
        "delivery_tag:longlong redelivered:bit exchange:shortstr routing_key:shortstr "
        "message_count:long",
    ),
    _tell(60, 72, "basic.get-empty", "server", "cluster_id:shortstr="),
    _tell(60, 80, "basic.ack", "both", "delivery_tag:longlong=0 multiple:bit"),
    _tell(60, 90, "basic.reject", "client", "delivery_tag:longlong requeue:bit=1"),
    _tell(60, 100, "basic.recover-async", "client", "requeue:bit"),
    _ask(60, 110, "basic.recover", "client", "requeue:bit"),
    _tell(60, 111, "basic.recover-ok", "server"),
    _tell(60, 120, "basic.nack", "both", "delivery_tag:longlong=0 multiple:bit requeue:bit=1"),
    _ask(85, 10, "confirm.select", "client", "nowait:bit"),
    _tell(85, 11, "confirm.select-ok", "server"),
    _ask(90, 10, "tx.select", "client"),
    _tell(90, 11, "tx.select-ok", "server"),
    _ask(90, 20, "tx.commit", "client"),
    _tell(90, 21, "tx.commit-ok", "server"),
    _ask(90, 30, "tx.rollback", "client"),
    _tell(90, 31, "tx.rollback-ok", "server"),
)
