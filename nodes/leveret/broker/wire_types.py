"""RabbitMQ's names for the types of field values. Pure."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Final

from leveret.amqp.fields import Float, TypedInt

_WIRE_NAMES: Final = {
    "b": "byte",
    "B": "unsignedbyte",
    "s": "short",
    "u": "unsignedshort",
    "I": "signedint",
    "i": "unsignedint",
    "l": "long",
    "L": "long",
    "T": "timestamp",
}


def wire_type(value: object) -> str:
    """Return RabbitMQ's name for the wire type of a decoded field value."""
    match value:
        case None:
            name = "void"
        case bool():
            name = "bool"
        case TypedInt():
            name = _WIRE_NAMES[value.TAG]
        case int():
            name = "signedint" if -(2**31) <= value < 2**31 else "long"
        case Float():
            name = "float"
        case float():
            name = "double"
        case str():
            name = "longstr"
        case bytes() | bytearray():
            name = "binary"
        case Decimal():
            name = "decimal"
        case datetime():
            name = "timestamp"
        case list() | tuple():
            name = "array"
        case _:
            name = "table"
    return name
