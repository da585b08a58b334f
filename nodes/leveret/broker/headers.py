"""Headers and properties of a stored message, for exchanges that route by them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leveret.amqp.delivery import Record
from leveret.amqp.errors import AmqpError
from leveret.amqp.properties import Properties

from .routing.exchange_types import HASH_PROPERTIES

if TYPE_CHECKING:
    from collections.abc import Mapping


def headers_of(record: bytes | memoryview) -> Mapping[str, object]:
    """Return the decoded headers of a stored message; empty if it has none, or malformed ones.

    Nothing has looked into the table before (see `leveret.amqp.properties`), and what a client
    put there must not crash who routes it.
    """
    try:
        return Properties.decode(Record(record).header).headers or {}
    except AmqpError:
        return {}


def properties_of(record: bytes | memoryview) -> Mapping[str, object]:
    """Return the properties of a stored message that an exchange may hash."""
    try:
        properties = Properties.decode(Record(record).header)
        return {name: getattr(properties, name) for name in HASH_PROPERTIES}
    except AmqpError:
        return {}
