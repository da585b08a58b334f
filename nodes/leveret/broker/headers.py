"""The header table of a stored message, for exchanges that route by it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leveret.amqp.delivery import Record
from leveret.amqp.properties import Properties

if TYPE_CHECKING:
    from collections.abc import Mapping


def headers_of(record: bytes | memoryview) -> Mapping[str, object]:
    """Return the decoded headers of a stored message; empty if it has none."""
    return Properties.decode(Record(record).header).headers or {}
