"""Content headers encoded once and used for every message with the same properties.

Such headers differ only in the size of the body; the rest is one block of octets.
"""

from __future__ import annotations

from operator import attrgetter
from struct import Struct
from typing import Final

from leveret.amqp import Properties
from leveret.amqp.definitions import PROPERTIES

_HEAD: Final = 60 << 16
_MEMO_MAX: Final = 256
_values_of = attrgetter(*(name for name, _ in PROPERTIES))


class Template:
    """The header of messages with the same properties."""

    __slots__ = ("_pack", "_rest")

    def __init__(self, properties: Properties) -> None:
        """Raises TypeError or ValueError if a property does not fit its wire type."""
        self._rest = properties.encode(0)[12:]
        self._pack = Struct(f">IQ{len(self._rest)}s").pack

    def encode(self, body_size: int) -> bytes:
        """The header payload for a body of `body_size` octets."""
        return self._pack(_HEAD, body_size, self._rest)


PERSISTENT: Final = Template(Properties(delivery_mode=2))
"""For messages without properties of their own: they are to survive the broker's restart."""

_by_values: dict[tuple[object, ...], Template] = {}


def template_of(properties: Properties | None) -> Template:
    """The template for `properties`, found again by their values unless there are headers.

    Raises:
        TypeError, ValueError: a property does not fit its wire type.
    """
    if properties is None:
        return PERSISTENT
    if properties.headers is not None:
        return Template(properties)
    values = _values_of(properties)
    template = _by_values.get(values)
    if template is None:
        template = Template(properties)
        if len(_by_values) >= _MEMO_MAX:
            _by_values.clear()
        _by_values[values] = template
    return template
