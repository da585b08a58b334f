"""Field tables and their values, bit for bit as RabbitMQ reads and writes them.

Decoding gives values that encode to the octets they came from. What a plain Python value would
encode otherwise comes as a subclass that remembers its wire type: `Short(7)` is 7 and is sent as
's' again. Plain values are sent as RabbitMQ's Python clients send them:

    bool 't' · int 'I', beyond 32 bits 'l' · float 'd' · str 'S' · bytes 'x' · None 'V'
    Decimal 'D' · datetime 'T' · list and tuple 'A' · dict 'F'

Deliberate losses, shared with RabbitMQ: a boolean octet above 1 comes back as 1. Of a name that
is repeated in one table the first value counts (RabbitMQ's look-up does the same) and the others
are dropped; who must pass tables on untouched passes on the octets, as the broker does.

RabbitMQ's errata to the specification hold: 's' is a signed 16-bit integer (not a string), 'u'
an unsigned one, 'I' and 'i' are 32 bits, 'l' and 'L' both signed 64 bits, 'D' is unsigned.

Spec: AMQP 0-9-1, 4.2.5.5, as amended by RabbitMQ's errata, section 3.
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Final, Self, TypeAlias

from leveret.amqp.errors import syntax_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

DEPTH_MAX: Final = 16
"""Tables and arrays inside one another; deeper ones are refused, so nothing recurses far."""

_INT32_MIN: Final = -(1 << 31)
_INT32_MAX: Final = (1 << 31) - 1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_LENGTH: Final = struct.Struct(">I")
_FLOAT: Final = struct.Struct(">f")
_DOUBLE: Final = struct.Struct(">d")
_DECIMAL: Final = struct.Struct(">BI")
_INT32: Final = struct.Struct(">i")
_INT64: Final = struct.Struct(">q")


class TypedInt(int):
    """An integer that remembers the wire type a plain int would not be sent as."""

    __slots__ = ()
    TAG: str
    WIRE: struct.Struct

    def __repr__(self) -> str:
        return f"{type(self).__name__}({int(self)})"


class Byte(TypedInt):
    """'b', signed 8 bits."""

    __slots__ = ()
    TAG = "b"
    WIRE = struct.Struct(">b")


class UnsignedByte(TypedInt):
    """'B', unsigned 8 bits."""

    __slots__ = ()
    TAG = "B"
    WIRE = struct.Struct(">B")


class Short(TypedInt):
    """'s', signed 16 bits."""

    __slots__ = ()
    TAG = "s"
    WIRE = struct.Struct(">h")


class UnsignedShort(TypedInt):
    """'u', unsigned 16 bits."""

    __slots__ = ()
    TAG = "u"
    WIRE = struct.Struct(">H")


class UnsignedInt(TypedInt):
    """'i', unsigned 32 bits."""

    __slots__ = ()
    TAG = "i"
    WIRE = struct.Struct(">I")


class Long(TypedInt):
    """'l', signed 64 bits, for a value that would fit 'I'."""

    __slots__ = ()
    TAG = "l"
    WIRE = _INT64


class LongLong(TypedInt):
    """'L', signed 64 bits, as RabbitMQ reads it."""

    __slots__ = ()
    TAG = "L"
    WIRE = _INT64


class Timestamp(TypedInt):
    """'T', unsigned 64 bits: seconds since 1970 (UTC). May lie beyond what a datetime holds."""

    __slots__ = ()
    TAG = "T"
    WIRE = struct.Struct(">Q")

    def datetime(self) -> datetime:
        """The moment, in UTC.

        Raises:
            OverflowError: it lies after the year 9999.
        """
        return _EPOCH + timedelta(seconds=int(self))


class Float(float):
    """'f', 32 bits; `raw` keeps the octets, since a NaN does not survive the way to 64 bits."""

    __slots__ = ("raw",)
    raw: bytes

    def __new__(cls, value: float) -> Self:
        self = super().__new__(cls, value)
        self.raw = _FLOAT.pack(value)
        return self

    @classmethod
    def from_octets(cls, raw: bytes) -> Self:
        """The value whose wire form is `raw`, four octets."""
        self = super().__new__(cls, _FLOAT.unpack(raw)[0])
        self.raw = raw
        return self


Value: TypeAlias = (
    "bool | int | float | str | bytes | bytearray | Decimal | datetime"
    " | Sequence[Value] | Mapping[str, Value] | None"
)
Table: TypeAlias = "dict[str, Value]"


def decode_table(data: bytes, offset: int, depth_max: int = DEPTH_MAX) -> tuple[Table, int]:
    """The table whose length word is at `offset`, and the offset behind it.

    Raises:
        AmqpError: 502, it is malformed, reaches beyond `data`, or is nested too deep.
    """
    try:
        return _read_table(data, offset, depth_max)
    except (IndexError, struct.error):
        raise syntax_error("malformed field table: it ends too early") from None


def encode_table(table: Mapping[str, Value], depth_max: int = DEPTH_MAX) -> bytes:
    """The wire form of `table`, length word included.

    Raises:
        TypeError: a value has no wire type.
        ValueError: a value or name does not fit its wire type, or the nesting is too deep.
    """
    parts: list[bytes] = []
    _write_table(parts.append, table, depth_max)
    return b"".join(parts)


def encode_shortstr(text: str) -> bytes:
    """`text` in UTF-8 behind a length octet.

    Raises:
        ValueError: it is longer than 255 octets.
    """
    octets = text.encode("utf-8", "surrogateescape")
    if len(octets) > 255:
        raise ValueError(f"a short string is at most 255 octets, not {len(octets)}")
    return bytes((len(octets),)) + octets


def encode_longstr(octets: bytes) -> bytes:
    """`octets` behind a length word."""
    return _LENGTH.pack(len(octets)) + octets


def _bounds(data: bytes, offset: int, end: int) -> tuple[int, int]:
    """The start and end of what the length word at `offset` announces, within `end`."""
    size: int = _LENGTH.unpack_from(data, offset)[0]
    start = offset + 4
    if start + size > end:
        raise syntax_error("malformed field table: a value reaches beyond its table")
    return start, start + size


def _read_table(data: bytes, offset: int, depth: int, limit: int = -1) -> tuple[Table, int]:
    if depth == 0:
        raise syntax_error(f"field table nested deeper than {DEPTH_MAX}")
    at, end = _bounds(data, offset, len(data) if limit < 0 else limit)
    table: Table = {}
    while at < end:
        key_end = at + 1 + data[at]
        if key_end >= end:
            raise syntax_error("malformed field table: a name reaches beyond its table")
        name = data[at + 1 : key_end].decode("utf-8", "surrogateescape")
        value, at = _read_value(data, key_end, end, depth)
        table.setdefault(name, value)
    return table, end


def _read_array(data: bytes, offset: int, depth: int, limit: int) -> tuple[list[Value], int]:
    if depth == 0:
        raise syntax_error(f"field table nested deeper than {DEPTH_MAX}")
    at, end = _bounds(data, offset, limit)
    items: list[Value] = []
    while at < end:
        value, at = _read_value(data, at, end, depth)
        items.append(value)
    return items, end


def _read_value(data: bytes, offset: int, end: int, depth: int) -> tuple[Value, int]:
    """The value whose tag is at `offset`, and the offset behind it, which is at most `end`."""
    tag = data[offset]
    at = offset + 1
    fixed = _FIXED.get(tag)
    if fixed is not None:
        wire, build = fixed
        after = at + wire.size
        if after > end:
            raise syntax_error("malformed field table: a value reaches beyond its table")
        return build(*wire.unpack_from(data, at)), after
    if tag == 0x53:  # S
        start, after = _bounds(data, at, end)
        return data[start:after].decode("utf-8", "surrogateescape"), after
    if tag == 0x46:  # F
        return _read_table(data, at, depth - 1, end)
    if tag == 0x41:  # A
        return _read_array(data, at, depth - 1, end)
    if tag == 0x78:  # x
        start, after = _bounds(data, at, end)
        return data[start:after], after
    if tag == 0x56:  # V
        return None, at
    raise syntax_error(f"malformed field table: unknown type {tag}")


def _int_or(narrow: Callable[[int], int]) -> Callable[[int], int]:
    """A plain int where that would be sent as the 'l' it came as, else the subclass."""
    return lambda value: narrow(value) if _INT32_MIN <= value <= _INT32_MAX else value


def _decimal(scale: int, unscaled: int) -> Decimal:
    # From digits: arithmetic would round to the precision of the caller's context.
    return Decimal((0, tuple(map(int, str(unscaled))), -scale))


# Tag -> layout and constructor of the values of fixed size.
_FIXED: Final[dict[int, tuple[struct.Struct, Callable[..., Value]]]] = {
    ord("t"): (UnsignedByte.WIRE, bool),
    ord("b"): (Byte.WIRE, Byte),
    ord("B"): (UnsignedByte.WIRE, UnsignedByte),
    ord("s"): (Short.WIRE, Short),
    ord("u"): (UnsignedShort.WIRE, UnsignedShort),
    ord("I"): (_INT32, int),
    ord("i"): (UnsignedInt.WIRE, UnsignedInt),
    ord("l"): (_INT64, _int_or(Long)),
    ord("L"): (_INT64, LongLong),
    ord("f"): (struct.Struct("4s"), Float.from_octets),
    ord("d"): (_DOUBLE, float),
    ord("D"): (_DECIMAL, _decimal),
    ord("T"): (Timestamp.WIRE, Timestamp),
}

Write: TypeAlias = "Callable[[bytes], None]"


def _write_table(write: Write, table: Mapping[str, Value], depth: int) -> None:
    if depth == 0:
        raise ValueError(f"field table nested deeper than {DEPTH_MAX}")
    parts: list[bytes] = []
    for name, value in table.items():
        parts.append(encode_shortstr(name))
        _write_value(parts.append, value, depth)
    body = b"".join(parts)
    write(_LENGTH.pack(len(body)))
    write(body)


def _write_array(write: Write, items: Sequence[Value], depth: int) -> None:
    if depth == 0:
        raise ValueError(f"field table nested deeper than {DEPTH_MAX}")
    parts: list[bytes] = []
    for value in items:
        _write_value(parts.append, value, depth)
    body = b"".join(parts)
    write(_LENGTH.pack(len(body)))
    write(body)


def _write_value(write: Write, value: Value, depth: int) -> None:
    # The order matters: a bool is an int, a TypedInt too, a Float is a float.
    if isinstance(value, str):
        octets = value.encode("utf-8", "surrogateescape")
        write(b"S" + _LENGTH.pack(len(octets)))
        write(octets)
    elif isinstance(value, bool):
        write(b"t\x01" if value else b"t\x00")
    elif isinstance(value, int):
        write(_encoded_int(value))
    elif value is None:
        write(b"V")
    elif isinstance(value, Float):
        write(b"f" + value.raw)
    elif isinstance(value, float):
        write(b"d" + _DOUBLE.pack(value))
    elif isinstance(value, bytes | bytearray):
        write(b"x" + _LENGTH.pack(len(value)))
        write(bytes(value))
    elif isinstance(value, dict):
        write(b"F")
        _write_table(write, value, depth - 1)
    elif isinstance(value, list | tuple):
        write(b"A")
        _write_array(write, value, depth - 1)
    elif isinstance(value, datetime):
        write(b"T" + _packed(Timestamp.WIRE, _seconds(value)))
    elif isinstance(value, Decimal):
        write(b"D" + _encoded_decimal(value))
    else:
        raise TypeError(f"a field table cannot hold a {type(value).__name__}")


def _packed(wire: struct.Struct, value: int) -> bytes:
    try:
        return wire.pack(value)
    except struct.error:
        raise ValueError(f"{value} does not fit a field of {wire.size} octets") from None


def _encoded_int(value: int) -> bytes:
    if isinstance(value, TypedInt):
        return value.TAG.encode() + _packed(value.WIRE, value)
    if _INT32_MIN <= value <= _INT32_MAX:
        return b"I" + _INT32.pack(value)
    return b"l" + _packed(_INT64, value)


def _encoded_decimal(value: Decimal) -> bytes:
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        raise ValueError(f"{value} has no wire form")  # noqa: TRY004 - an infinity or NaN
    scale = max(0, -exponent)
    unscaled = int("".join(map(str, digits)) or "0") * 10 ** max(0, min(exponent, 11))
    if sign or unscaled > 0xFFFFFFFF or scale > 255:
        raise ValueError(f"a decimal field holds 0 to 4294967295 and 255 places, not {value}")
    return _DECIMAL.pack(scale, unscaled)


def _seconds(moment: datetime) -> int:
    """Whole seconds since 1970; a naive moment is taken as UTC, as pika and py-amqp do."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(seconds=1)
