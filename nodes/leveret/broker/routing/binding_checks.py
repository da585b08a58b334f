"""What a binding must be like for the exchange that it starts from. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from leveret.amqp import errors
from leveret.broker.routing.exchange_types import CONSISTENT_HASH, routes_like
from leveret.broker.routing.headers import check_arguments as check_header_arguments
from leveret.broker.routing.spreading import check_weight


def check_binding(
    exchange_type: str,
    exchange_arguments: Mapping[str, object],
    routing_key: str,
    arguments: Mapping[str, object],
) -> None:
    """Accept or refuse a binding from an exchange of this type, with these arguments.

    Raises:
        AmqpError: 406, it says nothing to such an exchange.
    """
    try:
        kind = routes_like(exchange_type, exchange_arguments)
        if kind == "headers":
            check_header_arguments(arguments)
        elif kind == CONSISTENT_HASH:
            check_weight(routing_key)
    except ValueError as error:
        raise errors.precondition_failed(str(error)) from None
