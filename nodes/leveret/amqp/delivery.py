"""Stored messages, and the frames that deliver them, joined around the stored octets.

A record is what a log keeps of one message and what a delivery is made from (docs/internals,
"A stored message"):

    <H length | route: exchange shortstr, routing-key shortstr | <I length | content header | body

Route and header are as the publisher sent them, so a delivery copies and never encodes them.
The highest bit of the route's length says that the message is a dead letter, whose header a queue
has written: a client may write `x-death`, too, but not that bit.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import Final

from leveret.amqp import spec
from leveret.amqp.errors import AmqpError
from leveret.amqp.events import split_route
from leveret.amqp.fields import Long, encode_shortstr, encode_table
from leveret.amqp.frames import append_body
from leveret.amqp.properties import Properties, with_table_entry

_ROUTE: Final = Struct("<H")
_DEAD: Final = 0x8000
_SIZE: Final = 0x7FFF
_HEADER: Final = Struct("<I")
_END: Final = b"\xce"
_TO_HEADER: Final = Struct(">BBHI")
_RETURN: Final = Struct(">BHIIH")
_GET: Final = Struct(">BHIIQB")
_COUNT: Final = Struct(">I")
_LONG: Final = Struct(">q")


def encode_route(exchange: str, routing_key: str) -> bytes:
    """Exchange and routing key as two shortstrs.

    Raises:
        ValueError: one is longer than 255 octets.
    """
    return encode_shortstr(exchange) + encode_shortstr(routing_key)


def encode_record(
    route: bytes, header: bytes, body: bytes, *, is_dead_letter: bool = False
) -> bytes:
    """The stored form of a message; the parts are as `Publish` carries them."""
    size = len(route) | _DEAD if is_dead_letter else len(route)
    return b"".join((_ROUTE.pack(size), route, _HEADER.pack(len(header)), header, body))


class Record:
    """The parts of one stored message. Nothing is copied until it is asked for."""

    __slots__ = ("_body_at", "_header_at", "octets")

    def __init__(self, octets: bytes | memoryview) -> None:
        self.octets = octets
        self._header_at: int = 6 + (_ROUTE.unpack_from(octets)[0] & _SIZE)
        self._body_at: int = self._header_at + _HEADER.unpack_from(octets, self._header_at - 4)[0]

    @property
    def route(self) -> bytes:
        """Exchange and routing key, two shortstrs."""
        return bytes(self.octets[2 : self._header_at - 4])

    @property
    def is_dead_letter(self) -> bool:
        """Whether a queue wrote its header when the message died there."""
        return bool(self.octets[1] & 0x80)

    def with_other(self, header: bytes) -> bytes:
        """The stored message with another content header payload."""
        return encode_record(self.route, header, self.body, is_dead_letter=self.is_dead_letter)

    @property
    def exchange(self) -> str:
        """The exchange it was published to."""
        return split_route(self.route)[0]

    @property
    def routing_key(self) -> str:
        """The routing key it was published with."""
        return split_route(self.route)[1]

    @property
    def header(self) -> bytes:
        """The content header payload, for `Properties.decode`."""
        return bytes(self.octets[self._header_at : self._body_at])

    @property
    def body_size(self) -> int:
        """Bytes of the body."""
        return len(self.octets) - self._body_at

    @property
    def body(self) -> bytes:
        """The body."""
        return bytes(self.octets[self._body_at :])

    def body_start(self, size_max: int) -> bytes:
        """The first octets of the body, `size_max` at most."""
        return bytes(self.octets[self._body_at : self._body_at + size_max])

    @property
    def body_view(self) -> memoryview:
        """The body, not copied."""
        return memoryview(self.octets)[self._body_at :]


def with_header(octets: bytes | memoryview, name: str, value: int) -> bytes:
    """The stored message `octets` with one more header, or another value of it.

    One whose headers cannot be read is returned as it is.
    """
    record = Record(octets)
    header = record.header
    if name.encode() not in header:
        header = with_table_entry(header, _table_entry(name, value))
    else:
        header = _replaced(record, name, value)
    return record.with_other(header)


def header_with_long(record: Record, name: str, value: int) -> bytes:
    """The content header payload of `record` with one more header of type 'l', as `with_header`.

    For values that hardly ever come twice.
    """
    header = record.header
    if name.encode() in header:
        return _replaced(record, name, Long(value))
    return with_table_entry(header, _long_name(name) + _LONG.pack(value))


def _replaced(record: Record, name: str, value: int) -> bytes:
    """The content header payload of `record` with another value of a header that it may have."""
    properties = Properties.decode(record.header).copy()
    try:
        properties.headers = {**(properties.headers or {}), name: value}
        return properties.encode(record.body_size)
    except (AmqpError, TypeError, ValueError):
        return record.header


@lru_cache(maxsize=8)
def _long_name(name: str) -> bytes:
    """What stands before the value of a table's entry of type 'l'."""
    return encode_shortstr(name) + b"l"


@lru_cache(maxsize=64)
def _table_entry(name: str, value: int) -> bytes:
    """One entry of a field table, without the table's length."""
    return encode_table({name: value})[4:]


class DeliverEncoder:
    """Makes the basic.deliver frames of one consumer; keep one for each."""

    __slots__ = ("_channel", "_fixed", "_head", "_prefix")

    def __init__(self, channel: int, consumer_tag: str) -> None:
        """Raises ValueError if the tag is longer than 255 octets."""
        self._channel = channel
        self._prefix = spec.BasicDeliver.ID.to_bytes(4, "big") + encode_shortstr(consumer_tag)
        self._fixed = len(self._prefix) + 9
        self._head = Struct(f">BHI{len(self._prefix)}sQB")

    def append(
        self,
        out: list[bytes | memoryview],
        delivery_tag: int,
        redelivered: bool,  # noqa: FBT001 - positional for speed: called once a delivery
        record: bytes | memoryview,
        frame_max: int,
    ) -> None:
        """Append the frames that deliver `record` to `out`, to be joined and sent."""
        if type(record) is not bytes:
            record = bytes(record)
        channel = self._channel
        route_end = 2 + (record[0] | (record[1] & 0x7F) << 8)
        (header_size,) = _HEADER.unpack_from(record, route_end)
        header_at = route_end + 4
        body_at = header_at + header_size
        size = len(record) - body_at
        head = self._head.pack(
            1, channel, self._fixed + route_end - 2, self._prefix, delivery_tag, redelivered
        )
        if 0 < size <= frame_max - 8:
            out += (
                head,
                record[2:route_end],
                _TO_HEADER.pack(0xCE, 2, channel, header_size),
                record[header_at:body_at],
                _TO_HEADER.pack(0xCE, 3, channel, size),
                record[body_at:],
                _END,
            )
            return
        out += (
            head,
            record[2:route_end],
            _TO_HEADER.pack(0xCE, 2, channel, header_size),
            record[header_at:body_at],
            _END,
        )
        append_body(out, channel, memoryview(record)[body_at:], frame_max)

    def append_changed(
        self,
        out: list[bytes | memoryview],
        delivery_tag: int,
        record: Record,
        header: bytes,
        frame_max: int,
    ) -> None:
        """As `append` of what was not delivered before, with another content header payload."""
        route = record.route
        out += (
            self._head.pack(
                1, self._channel, self._fixed + len(route), self._prefix, delivery_tag, False
            ),
            route,
            _TO_HEADER.pack(0xCE, 2, self._channel, len(header)),
            header,
            _END,
        )
        append_body(out, self._channel, record.body_view, frame_max)


def encode_get_ok(
    channel: int,
    delivery_tag: int,
    record: bytes | memoryview,
    *,
    redelivered: bool,
    message_count: int,
    frame_max: int,
) -> bytes:
    """The frames of basic.get-ok with the content of `record`.

    message_count: messages that are still ready in the queue.
    """
    stored = Record(record)
    route = stored.route
    size = 4 + 9 + len(route) + 4
    head = _GET.pack(1, channel, size, spec.BasicGetOk.ID, delivery_tag, redelivered)
    return _with_content(channel, head + route + _COUNT.pack(message_count), stored, frame_max)


def encode_return(
    channel: int, reply_code: int, reply_text: str, record: bytes | memoryview, *, frame_max: int
) -> bytes:
    """The frames of basic.return with the content of `record`: 312 NO_ROUTE, as a rule.

    RabbitMQ's text is the bare name, without a detail.
    """
    stored = Record(record)
    text = encode_shortstr(reply_text)
    route = stored.route
    size = 4 + 2 + len(text) + len(route)
    head = _RETURN.pack(1, channel, size, spec.BasicReturn.ID, reply_code)
    return _with_content(channel, head + text + route, stored, frame_max)


def _with_content(channel: int, method_frame: bytes, stored: Record, frame_max: int) -> bytes:
    """`method_frame`, still without its end octet, and the content of `stored` behind it."""
    header = stored.header
    out: list[bytes | memoryview] = [
        method_frame,
        _TO_HEADER.pack(0xCE, 2, channel, len(header)),
        header,
        _END,
    ]
    append_body(out, channel, memoryview(stored.body), frame_max)
    return b"".join(out)
