"""The types of exchanges. Pure."""

from __future__ import annotations

from typing import Final

EXCHANGE_TYPES: Final = frozenset({"direct", "fanout", "headers", "topic"})

DELAYED: Final = "x-delayed-message"
"""An exchange of this type routes like the type in its argument `DELAYED_TYPE`.  What asks for a
delay waits in its queues (see `broker.message_life`)."""
DELAYED_TYPE: Final = "x-delayed-type"
