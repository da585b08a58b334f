"""The basic class's 14 properties, as a view over the content header's octets.

A content header payload is: class id (16 bits), weight (16), body size (64), then a word of flags
and the properties whose flag is set. The broker keeps that payload verbatim and asks `flags` what
is there; `Properties` decodes when an attribute is first read. A property that is absent is None;
one that is present and empty is empty, and both survive encoding.

Spec: AMQP 0-9-1, 4.2.6.1.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from struct import Struct
from typing import TYPE_CHECKING, Final

from leveret.amqp.definitions import PROPERTIES
from leveret.amqp.errors import AmqpError, syntax_error
from leveret.amqp.fields import decode_table, encode_shortstr, encode_table

if TYPE_CHECKING:
    from leveret.amqp.fields import Table

CONTENT_TYPE: Final = 1 << 15
CONTENT_ENCODING: Final = 1 << 14
HEADERS: Final = 1 << 13
DELIVERY_MODE: Final = 1 << 12
PRIORITY: Final = 1 << 11
CORRELATION_ID: Final = 1 << 10
REPLY_TO: Final = 1 << 9
EXPIRATION: Final = 1 << 8
MESSAGE_ID: Final = 1 << 7
TIMESTAMP: Final = 1 << 6
TYPE: Final = 1 << 5
USER_ID: Final = 1 << 4
APP_ID: Final = 1 << 3
CLUSTER_ID: Final = 1 << 2

HEADER_MIN: Final = 14
"""Octets of a content header without any property."""

# Bits 1 and 0: the specification would let bit 0 announce a second word of flags, which no client
# sends and RabbitMQ cannot read.
_UNKNOWN: Final = 0b11
_BEFORE_REPLY_TO: Final = ~(2 * REPLY_TO - 1)
_CLASS_BASIC: Final = 60
_HEAD: Final = Struct(">HHQH")
_BODY_SIZE: Final = Struct(">Q")
_FLAGS: Final = Struct(">H")
_LENGTH: Final = Struct(">I")
_LONGLONG: Final = Struct(">Q")
_FLAG: Final = {name: 1 << (15 - index) for index, (name, _) in enumerate(PROPERTIES)}
_SHORTSTR: Final = 0
_TABLE: Final = -1
_STEP: Final = {"octet": 1, "longlong": 8, "shortstr": _SHORTSTR, "table": _TABLE}


def flags(header: bytes | memoryview) -> int:
    """The flags word of the content header payload `header`: which properties are present."""
    return header[12] << 8 | header[13]


def body_size(header: bytes | memoryview) -> int:
    """The body size that the content header payload `header` announces."""
    size: int = _BODY_SIZE.unpack_from(header, 4)[0]
    return size


def is_well_formed(header: bytes) -> bool:
    """The properties that the flags announce fill `header` exactly.

    The inside of the headers table is not looked at.
    """
    size = len(header)
    if size < HEADER_MIN:
        return False
    present = header[12] << 8 | header[13]
    if present & _UNKNOWN:
        return False
    at = HEADER_MIN
    try:
        for step in _steps(present):
            if step > 0:
                at += step
            elif step == _SHORTSTR:
                at += 1 + header[at]
            else:
                at += 4 + _LENGTH.unpack_from(header, at)[0]
    except (IndexError, struct.error):
        return False
    return at == size


def with_reply_to(header: bytes, reply_to: str) -> bytes:
    """The content header payload `header`, which has a reply_to, with another; else verbatim.

    Raises:
        ValueError: it is longer than 255 octets.
    """
    at = HEADER_MIN
    for step in _steps(flags(header) & _BEFORE_REPLY_TO):
        if step > 0:
            at += step
        elif step == _SHORTSTR:
            at += 1 + header[at]
        else:
            at += 4 + _LENGTH.unpack_from(header, at)[0]
    return header[:at] + encode_shortstr(reply_to) + header[at + 1 + header[at] :]


def with_table_entry(header: bytes, entry: bytes) -> bytes:
    """The content header payload `header` with one more entry at the end of its headers table.

    entry: an encoded name and value; the table must not have that name yet.
    """
    present = flags(header)
    at = HEADER_MIN
    for _ in range((present & CONTENT_TYPE > 0) + (present & CONTENT_ENCODING > 0)):
        at += 1 + header[at]
    if not present & HEADERS:
        head = header[: HEADER_MIN - 2] + _FLAGS.pack(present | HEADERS)
        return b"".join((head, header[HEADER_MIN:at], _LENGTH.pack(len(entry)), entry, header[at:]))
    (size,) = _LENGTH.unpack_from(header, at)
    end = at + 4 + size
    return b"".join(
        (header[:at], _LENGTH.pack(size + len(entry)), header[at + 4 : end], entry, header[end:])
    )


@lru_cache(maxsize=256)
def _steps(present: int) -> tuple[int, ...]:
    """How to walk over the properties of a flags word: octets to skip, _SHORTSTR or _TABLE."""
    return tuple(_STEP[kind] for name, kind in PROPERTIES if present & _FLAG[name])


class Properties:
    """The properties of one message: made from keywords, or a lazy view over a header payload.

    `timestamp` is in seconds since 1970, `expiration` a decimal string in milliseconds.
    Reading an attribute of a view may raise AmqpError 502 if the header is malformed.

    Example:
        >>> Properties(content_type="text/plain", headers={"hare": 1}).headers
        {'hare': 1}
    """

    __slots__ = (*(name for name, _ in PROPERTIES), "_header", "_table")

    content_type: str | None
    content_encoding: str | None
    headers: Table | None
    delivery_mode: int | None
    priority: int | None
    correlation_id: str | None
    reply_to: str | None
    expiration: str | None
    message_id: str | None
    timestamp: int | None
    type: str | None
    user_id: str | None
    app_id: str | None
    cluster_id: str | None
    _header: bytes
    _table: int

    def __init__(
        self,
        *,
        content_type: str | None = None,
        content_encoding: str | None = None,
        headers: Table | None = None,
        delivery_mode: int | None = None,
        priority: int | None = None,
        correlation_id: str | None = None,
        reply_to: str | None = None,
        expiration: str | None = None,
        message_id: str | None = None,
        timestamp: int | None = None,
        type: str | None = None,  # noqa: A002 - the specification's name
        user_id: str | None = None,
        app_id: str | None = None,
        cluster_id: str | None = None,
    ) -> None:
        self.content_type = content_type
        self.content_encoding = content_encoding
        self.headers = headers
        self.delivery_mode = delivery_mode
        self.priority = priority
        self.correlation_id = correlation_id
        self.reply_to = reply_to
        self.expiration = expiration
        self.message_id = message_id
        self.timestamp = timestamp
        self.type = type
        self.user_id = user_id
        self.app_id = app_id
        self.cluster_id = cluster_id

    @classmethod
    def decode(cls, header: bytes) -> Properties:
        """A view over the content header payload `header`; decodes nothing yet.

        It is for reading: to change something, take a `copy`.
        """
        self = cls.__new__(cls)
        self._header = header
        return self

    def encode(self, body_size: int) -> bytes:
        """The content header payload for a body of `body_size` octets.

        Raises:
            TypeError, ValueError: a property does not fit its wire type.
        """
        present = 0
        parts = [b""]
        for name, kind in PROPERTIES:
            value = getattr(self, name)
            if value is None:
                continue
            present |= _FLAG[name]
            if kind == "shortstr":
                parts.append(encode_shortstr(value))
            elif kind == "octet":
                parts.append(bytes((value,)))
            elif kind == "table":
                parts.append(encode_table(value))
            else:
                try:
                    parts.append(_LONGLONG.pack(value))
                except struct.error as error:
                    raise ValueError(f"{name}: {error}") from None
        parts[0] = _HEAD.pack(_CLASS_BASIC, 0, body_size, present)
        return b"".join(parts)

    def copy(self) -> Properties:
        """The same properties, to be changed.

        Example:
            >>> copy = Properties.decode(Properties(type="t").encode(0)).copy()
            >>> copy.reply_to = "answers"
            >>> copy
            Properties(reply_to='answers', type='t')
        """
        return Properties(**{name: getattr(self, name) for name, _ in PROPERTIES})

    def __getattr__(self, name: str) -> object:
        # Called only for a slot that is still unset, that is in a view not yet decoded.
        if name not in _FLAG:
            raise AttributeError(name)
        if name == "headers":
            self._unfold_headers()
        else:
            self._unfold()
        return object.__getattribute__(self, name)

    def _unfold(self) -> None:
        """Decode everything but the headers table, whose offset is kept in `_table`."""
        header = self._header
        try:
            (present,) = _FLAGS.unpack_from(header, 12)
            at = HEADER_MIN
            self._table = 0
            for name, kind in PROPERTIES:
                if not present & _FLAG[name]:
                    if kind != "table":
                        object.__setattr__(self, name, None)
                elif kind == "shortstr":
                    end = at + 1 + header[at]
                    text = header[at + 1 : end].decode("utf-8", "surrogateescape")
                    object.__setattr__(self, name, text)
                    at = end
                elif kind == "octet":
                    object.__setattr__(self, name, header[at])
                    at += 1
                elif kind == "table":
                    self._table = at
                    at += 4 + _LENGTH.unpack_from(header, at)[0]
                else:
                    object.__setattr__(self, name, _LONGLONG.unpack_from(header, at)[0])
                    at += 8
        except (IndexError, struct.error):
            raise malformed_header() from None
        if at != len(header) or present & _UNKNOWN:
            raise malformed_header()

    def _unfold_headers(self) -> None:
        if not flags(self._header) & HEADERS:
            self.headers = None
            return
        self._unfold()
        self.headers = decode_table(self._header, self._table)[0]

    def __eq__(self, other: object) -> bool:
        if type(other) is not Properties:
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name, _ in PROPERTIES)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ((name, getattr(self, name)) for name, _ in PROPERTIES)
        return f"Properties({', '.join(f'{n}={v!r}' for n, v in shown if v is not None)})"


def malformed_header() -> AmqpError:
    """502. RabbitMQ answers 541 without a word; this names the cause, with the same scope."""
    return syntax_error("malformed content header")
