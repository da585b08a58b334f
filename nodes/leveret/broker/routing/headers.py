"""The headers exchange: the binding's arguments are compared with the message's headers. Pure.

As RabbitMQ 3.10 does, values are compared without their wire type: a short string equals a long
one or a byte array with the same bytes, an integer equals a timestamp, a decimal equals only a
decimal, a truth value only a truth value. A void value in the binding means "present".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import ClassVar, NamedTuple

from leveret.broker.routing.matcher import Reads
from leveret.broker.wire_types import wire_type
from leveret.catalog.model import Binding

_KINDS = ("all", "any", "all-with-x", "any-with-x")


def check_arguments(arguments: Mapping[str, object]) -> None:
    """Accept or refuse the arguments of a binding to a headers exchange.

    Raises:
        ValueError: `x-match` is none of the four; the text is RabbitMQ's detail of the 406.
    """
    if "x-match" not in arguments:
        return
    kind = arguments["x-match"]
    if not isinstance(kind, str):
        raise ValueError(  # noqa: TRY004  # one error for what a client sends, whatever is wrong
            f"Invalid x-match field type {wire_type(kind)} (value {erlang_term(kind)}); "
            "expected longstr"
        )
    if kind not in _KINDS:
        raise ValueError(
            f"Invalid x-match field value {erlang_term(kind)}; "
            "expected all, any, all-with-x, or any-with-x"
        )


class _Pattern(NamedTuple):
    """One binding, ready to compare: `wanted` holds normal forms, None for "present"."""

    needs_all: bool
    wanted: tuple[tuple[str, object], ...]

    def fits(self, headers: Mapping[str, object]) -> bool:
        """Say whether `headers`, values in normal form, match."""
        for name, value in self.wanted:
            is_fitting = name in headers and (value is None or headers[name] == value)
            if is_fitting != self.needs_all:
                return is_fitting
        return self.needs_all


class HeadersMatcher:
    """Bindings with their arguments decoded once.

    decode: gives the view of a binding's arguments, an encoded table.
    """

    reads: ClassVar[Reads] = "headers"

    def __init__(self, decode: Callable[[bytes], Mapping[str, object]]) -> None:
        self._decode = decode
        self._patterns: dict[Binding, _Pattern] = {}

    def add(self, binding: Binding) -> None:
        arguments = self._decode(binding.arguments)
        kind = arguments.get("x-match", "all")
        with_x = kind in ("all-with-x", "any-with-x")
        wanted = tuple(
            (name, _normal(value))
            for name, value in arguments.items()
            if name != "x-match" and (with_x or not name.startswith("x-"))
        )
        self._patterns[binding] = _Pattern(kind not in ("any", "any-with-x"), wanted)

    def remove(self, binding: Binding) -> None:
        self._patterns.pop(binding, None)

    def match(self, routing_key: str, headers: Mapping[str, object]) -> Iterable[Binding]:
        normal = {name: _normal(value) for name, value in headers.items()}
        return [binding for binding, pattern in self._patterns.items() if pattern.fits(normal)]


def _normal(value: object) -> object:
    """Return a form in which RabbitMQ's equality of two field values is Python's `==`.

    Tuples carry a tag so that values of different families are never equal.
    None stays None: a header that is void equals nothing but "present".
    """
    match value:
        case bool():
            return ("bool", value)
        case str():
            return ("bytes", value.encode("utf-8", "surrogateescape"))
        case bytes() | bytearray():
            return ("bytes", bytes(value))
        case datetime():
            return _seconds(value)
        case Decimal():
            return ("decimal", value.as_tuple())  # 1.5 and 1.50 differ, as their bytes do
        case list() | tuple():
            return ("array", tuple(_normal(item) for item in value))
        case Mapping():
            # The order of the fields of a nested table counts, observed on 3.10.8.
            return ("table", tuple((name, _normal(item)) for name, item in value.items()))
    return value


def _seconds(value: datetime) -> int:
    """Return the timestamp of `value`, which is in UTC if it names no zone."""
    return int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())


def erlang_term(value: object) -> str:
    """Return a field value as RabbitMQ prints it in error texts: an Erlang term."""
    match value:
        case None:
            return "undefined"
        case bool():
            return str(value).lower()
        case str():
            return _binary_term(value.encode("utf-8", "surrogateescape"))
        case bytes() | bytearray():
            return _binary_term(bytes(value))
        case datetime():
            return str(_seconds(value))
        case Decimal():
            sign, digits, exponent = value.as_tuple()
            unscaled = int("".join(map(str, digits)))
            return f"{{{-int(exponent)},{-unscaled if sign else unscaled}}}"
        case list() | tuple():
            items = (f"{{{wire_type(item)},{erlang_term(item)}}}" for item in value)
            return f"[{','.join(items)}]"
        case Mapping():
            fields = (
                f"{{{erlang_term(name)},{wire_type(item)},{erlang_term(item)}}}"
                for name, item in value.items()
            )
            return f"[{','.join(fields)}]"
    return str(value)


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}
_ESCAPES |= {"\b": "\\b", "\f": "\\f", "\x1b": "\\e"}


def _binary_term(data: bytes) -> str:
    """Return a binary as Erlang prints it: as text if all its bytes print in Latin-1."""
    if not data:
        return "<<>>"
    characters = data.decode("latin-1")
    if all(x in _ESCAPES or " " <= x <= "~" or x >= "\xa0" for x in characters):
        text = "".join(_ESCAPES.get(x, x) for x in characters)
        return f'<<"{text.encode("latin-1").decode("utf-8", "replace")}">>'
    return f"<<{','.join(map(str, data))}>>"
