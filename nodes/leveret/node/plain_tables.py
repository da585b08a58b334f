"""Field tables as JSON has them: for listings, and for files of definitions. Pure."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from leveret.broker.arguments import decode_arguments

if TYPE_CHECKING:
    from collections.abc import Mapping


def plain_arguments(octets: bytes) -> dict[str, object]:
    """Return the arguments that the catalog keeps as `octets`."""
    return plain_table(decode_arguments(octets))


def plain_table(table: Mapping[str, object]) -> dict[str, object]:
    """Return a field table in JSON's types; octets that are no text are replaced."""
    return {key: _plain(value) for key, value in table.items()}


def _plain(value: object) -> object:
    match value:
        case None | bool() | str():
            return value
        case int():
            return int(value)
        case float():
            return float(value)
        case Decimal():
            return float(value)
        case datetime():
            return int(value.timestamp())
        case bytes() | bytearray():
            return value.decode("utf-8", "replace")
        case list() | tuple():
            return [_plain(item) for item in value]
        case dict():
            return plain_table(value)
    return str(value)
