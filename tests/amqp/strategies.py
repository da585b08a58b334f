"""Hypothesis strategies for field tables, properties and every method."""

from __future__ import annotations

import struct
from decimal import Decimal
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from leveret.amqp import Properties, spec
from leveret.amqp.definitions import METHODS, PROPERTIES
from leveret.amqp.fields import (
    Byte,
    Float,
    Long,
    LongLong,
    Short,
    Timestamp,
    UnsignedByte,
    UnsignedInt,
    UnsignedShort,
    Value,
)

if TYPE_CHECKING:
    from leveret.amqp import Method
    from leveret.amqp.method import Method as AnyMethod

# Any octets: a string may hold what is not UTF-8.
any_text = st.binary(max_size=40).map(lambda b: b.decode("utf-8", "surrogateescape"))
short_text = any_text
name_text = st.text(st.characters(codec="utf-8"), max_size=40)


def _signed(bits: int) -> st.SearchStrategy[int]:
    return st.integers(-(1 << bits - 1), (1 << bits - 1) - 1)


def _unsigned(bits: int) -> st.SearchStrategy[int]:
    return st.integers(0, (1 << bits) - 1)


scalars: st.SearchStrategy[Value] = st.one_of(
    st.none(),
    st.booleans(),
    _signed(64),
    _signed(8).map(Byte),
    _unsigned(8).map(UnsignedByte),
    _signed(16).map(Short),
    _unsigned(16).map(UnsignedShort),
    _unsigned(32).map(UnsignedInt),
    _signed(32).map(Long),
    _signed(64).map(LongLong),
    _unsigned(64).map(Timestamp),
    st.binary(min_size=4, max_size=4).map(Float.from_octets),
    st.binary(min_size=8, max_size=8).map(lambda b: float(struct.unpack(">d", b)[0])),
    st.builds(
        lambda scale, value: Decimal((0, tuple(map(int, str(value))), -scale)),
        _unsigned(8),
        _unsigned(32),
    ),
    st.binary(max_size=20),
    any_text,
)
values: st.SearchStrategy[Value] = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(short_text, inner, max_size=4)
    ),
    max_leaves=12,
)
tables = st.dictionaries(short_text, values, max_size=6)

_PROPERTY = {
    "shortstr": short_text,
    "octet": _unsigned(8),
    "longlong": _unsigned(64),
    "table": tables,
}
properties = st.fixed_dictionaries(
    {}, optional={name: _PROPERTY[kind] for name, kind in PROPERTIES}
).map(lambda chosen: Properties(**chosen))  # type: ignore[arg-type]


def _argument(kind: str, *, has_content: bool) -> st.SearchStrategy[object]:
    match kind:
        case "bit":
            return st.booleans()
        case "octet":
            return _unsigned(8)
        case "short":
            return _unsigned(16)
        case "long":
            return _unsigned(32)
        case "longlong":
            return _unsigned(64)
        case "longstr":
            return st.binary(max_size=40)
        case "table":
            return tables
        case _:
            return any_text if has_content else name_text


def _method(class_id: int, method_id: int, arguments: str) -> st.SearchStrategy[Method]:
    cls: type[AnyMethod] = spec.METHODS[class_id << 16 | method_id]
    fields = {}
    for argument in arguments.split():
        name, _, kind = argument.partition("=")[0].partition(":")
        fields[name] = _argument(kind, has_content=cls.HAS_CONTENT)
    return st.fixed_dictionaries(fields).map(lambda chosen: cls(**chosen))


methods: dict[str, st.SearchStrategy[Method]] = {
    d.name: _method(d.class_id, d.method_id, d.arguments) for d in METHODS
}
