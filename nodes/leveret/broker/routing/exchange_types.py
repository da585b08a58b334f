"""The types of exchanges. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

CONSISTENT_HASH: Final = "x-consistent-hash"
MODULUS_HASH: Final = "x-modulus-hash"
RANDOM: Final = "x-random"

EXCHANGE_TYPES: Final = frozenset(
    {"direct", "fanout", "headers", "topic", CONSISTENT_HASH, MODULUS_HASH, RANDOM}
)

DELAYED: Final = "x-delayed-message"
"""An exchange of this type routes like the type in its argument `DELAYED_TYPE`.  What asks for a
delay waits in its queues (see `broker.message_life`)."""
DELAYED_TYPE: Final = "x-delayed-type"


HASH_HEADER: Final = "hash-header"
"""The argument of a consistent-hash exchange that names the header to hash."""
HASH_PROPERTY: Final = "hash-property"
"""Likewise the property: one of `HASH_PROPERTIES`."""
HASH_PROPERTIES: Final = ("correlation_id", "message_id", "timestamp")


def routes_like(exchange_type: str, arguments: Mapping[str, object]) -> str:
    """Return the type that says how an exchange of this type, with these arguments, routes."""
    return str(arguments.get(DELAYED_TYPE)) if exchange_type == DELAYED else exchange_type


def check_hash_exchange(arguments: Mapping[str, object]) -> None:
    """Accept or refuse the arguments of a consistent-hash exchange.

    Raises:
        ValueError: they do not say what to hash; the text is RabbitMQ's detail of the 406.
    """
    if HASH_HEADER in arguments and HASH_PROPERTY in arguments:
        raise ValueError(f"{HASH_HEADER} and {HASH_PROPERTY} are mutually exclusive")
    if not isinstance(arguments.get(HASH_HEADER, ""), str):
        # RabbitMQ ends the connection with an internal error.
        raise ValueError(f"Unsupported header: {arguments[HASH_HEADER]}")  # noqa: TRY004
    if HASH_PROPERTY in arguments and arguments[HASH_PROPERTY] not in HASH_PROPERTIES:
        raise ValueError(f"Unsupported property: {arguments[HASH_PROPERTY]}")
