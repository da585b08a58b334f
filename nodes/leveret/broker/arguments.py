"""The arguments of declarations: what they may be, and when two declarations are the same. Pure.

The texts are RabbitMQ's (observed on 3.10.8), because client suites match on them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from leveret.amqp import errors
from leveret.amqp.fields import TypedInt, decode_table

from . import stream_arguments
from .routing.exchange_types import (
    CONSISTENT_HASH,
    DELAYED,
    DELAYED_TYPE,
    EXCHANGE_TYPES,
    check_hash_exchange,
    routes_like,
)
from .wire_types import wire_type

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from leveret.amqp.fields import Value

QUEUE_TYPES: Final = frozenset({"classic", "quorum", stream_arguments.STREAM})
OVERFLOWS: Final = frozenset({"drop-head", "reject-publish", "reject-publish-dlx"})
RETRY_TYPES: Final = frozenset({"disabled", "all", "failed", "returned"})
QUEUE_MODES: Final = frozenset({"default", "lazy"})
LEADER_LOCATORS: Final = frozenset({"client-local", "balanced", "random", "least-leaders"})


def decode_arguments(octets: bytes) -> Mapping[str, object]:
    """Return the arguments of a declaration as the catalog keeps them; empty octets are none."""
    return decode_table(octets, 0)[0] if octets else {}


def _integer(value: object) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return f'"expected integer, got {wire_type(value)}"'
    return None


def _non_negative(value: object) -> str | None:
    problem = _integer(value)
    if problem is None and int(value) < 0:  # type: ignore[call-overload]
        return f"{{value_negative,{value:d}}}"
    return problem


def _positive(value: object) -> str | None:
    problem = _non_negative(value)
    return "{value_zero,0}" if problem is None and value == 0 else problem


def _string(value: object) -> str | None:
    if not isinstance(value, str):
        return f'"expected string, got {wire_type(value)}"'
    return None


def _boolean(value: object) -> str | None:
    if not isinstance(value, bool):
        return f'"expected boolean, got {wire_type(value)}"'
    return None


def _priority(value: object) -> str | None:
    problem = _non_negative(value)
    if problem is None and int(value) > 255:  # type: ignore[call-overload]
        return f"{{max_value_exceeded,{value:d}}}"
    return problem


def _one_of(allowed: frozenset[str], problem: str) -> Callable[[object], str | None]:
    def check(value: object) -> str | None:
        return _string(value) or (None if value in allowed else problem)

    return check


def _queue_type(value: object) -> str | None:
    return _string(value) or (
        None if value in QUEUE_TYPES else f"\"unsupported queue type '{value}'\""
    )


_QUEUE_CHECKS: Final[dict[str, Callable[[object], str | None]]] = {
    "x-expires": _positive,
    "x-message-ttl": _non_negative,
    "x-dead-letter-exchange": _string,
    "x-dead-letter-routing-key": _string,
    "x-max-length": _non_negative,
    "x-max-length-bytes": _non_negative,
    "x-max-priority": _priority,
    "x-overflow": _one_of(OVERFLOWS, "invalid_overflow"),
    "x-queue-mode": _one_of(QUEUE_MODES, "invalid_queue_mode"),
    "x-single-active-consumer": _boolean,
    "x-queue-type": _queue_type,
    "x-delivery-limit": _integer,
    "x-consumer-timeout": _non_negative,
    "x-delayed-retry-type": _one_of(RETRY_TYPES, "invalid_delayed_retry_type"),
    "x-delayed-retry-min": _non_negative,
    "x-delayed-retry-max": _non_negative,
    "x-max-age": stream_arguments.check_age,
    "x-stream-max-segment-size-bytes": _non_negative,
    "x-initial-cluster-size": _positive,
    "x-queue-leader-locator": _one_of(LEADER_LOCATORS, "invalid_queue_locator_arg"),
}
"""The known arguments in the order in which they are checked; the rest is kept and ignored."""

_COMPARED: Final = (*_QUEUE_CHECKS, "x-quorum-initial-group-size", "x-queue-version")


def check_queue(
    arguments: Mapping[str, object],
    *,
    name: str,
    vhost: str,
    durable: bool,
    exclusive: bool,
    auto_delete: bool = False,
) -> None:
    """Accept or refuse the arguments of a queue.declare; `name` is empty if the server names it.

    Raises:
        AmqpError: 406 with RabbitMQ's text.
    """
    where = f"for queue '{name}' in vhost '{vhost}'"
    stream_arguments.check_keys(arguments, name=name, vhost=vhost)
    for key, check in _QUEUE_CHECKS.items():
        if key in arguments:
            problem = check(arguments[key])
            if problem is not None:
                raise errors.precondition_failed(f"invalid arg '{key}' {where}: {problem}")
    if "x-dead-letter-routing-key" in arguments and "x-dead-letter-exchange" not in arguments:
        problem = "routing_key_but_no_dlx_defined"
        raise errors.precondition_failed(
            f"invalid arg 'x-dead-letter-routing-key' {where}: {problem}"
        )
    if arguments.get("x-queue-type") == stream_arguments.STREAM:
        stream_arguments.check_properties(
            arguments, where=where, durable=durable, exclusive=exclusive, auto_delete=auto_delete
        )
    if arguments.get("x-queue-type") == "quorum":
        if name == "":
            raise errors.precondition_failed(
                "Cannot declare a server-named queue for type rabbit_quorum_queue"
            )
        if not durable:
            raise errors.precondition_failed(f"invalid property 'non-durable' {where}")
        if exclusive:
            raise errors.precondition_failed(f"invalid property 'exclusive-owner' {where}")


def with_default_type(
    arguments: Mapping[str, Value],
    default: str,
    *,
    durable: bool,
    exclusive: bool,
    auto_delete: bool,
    current: Mapping[str, object] | None,
) -> Mapping[str, Value]:
    """Return the arguments of a queue.declare with the type that its virtual host gives it.

    default: the type of the virtual host, or "". current: the arguments of the queue of that name,
        if there is one: a declaration that names no type means the one that it has, also when the
        default came or changed after it.
    """
    if not default or "x-queue-type" in arguments:
        return arguments
    if current is not None:
        has = current.get("x-queue-type")
        return {**arguments, "x-queue-type": has} if isinstance(has, str) else arguments
    if default != "classic" and (not durable or exclusive or auto_delete):
        return arguments  # such a queue cannot be of that type
    return {**arguments, "x-queue-type": default}


def check_exchange(exchange_type: str, arguments: Mapping[str, object]) -> None:
    """Accept or refuse the type of an exchange.declare, with the arguments that belong to it.

    Raises:
        AmqpError: 503, there is no such type; 406, a delayed exchange does not say how to route,
            or one that hashes what to hash.
    """
    if exchange_type == DELAYED:
        if arguments.get(DELAYED_TYPE) not in EXCHANGE_TYPES:
            raise errors.precondition_failed(
                f"Invalid argument, '{DELAYED_TYPE}' must be an existing exchange type"
            )
    elif exchange_type not in EXCHANGE_TYPES:
        raise errors.command_invalid(f"unknown exchange type '{exchange_type}'")
    if routes_like(exchange_type, arguments) == CONSISTENT_HASH:
        try:
            check_hash_exchange(arguments)
        except ValueError as error:
            raise errors.precondition_failed(str(error)) from None


def check_same(
    what: str, name: str, vhost: str, *, wanted: Mapping[str, object], current: Mapping[str, object]
) -> None:
    """Accept or refuse a declaration of something that is there, by its properties.

    what: "queue" or "exchange".  The values are as they read in the text.

    Raises:
        AmqpError: 406, the first property that differs.
    """
    for key, value in wanted.items():
        if value != current[key]:
            raise errors.precondition_failed(
                f"inequivalent arg '{key}' for {what} '{name}' in vhost '{vhost}': "
                f"received '{_shown(value)}' but current is '{_shown(current[key])}'"
            )


def check_same_arguments(
    what: str,
    name: str,
    vhost: str,
    *,
    wanted: Mapping[str, object],
    current: Mapping[str, object],
    keys: tuple[str, ...] = _COMPARED,
) -> None:
    """Accept or refuse a declaration of something that is there, by its known arguments.

    Integers are compared by value, whatever their wire types.

    Raises:
        AmqpError: 406, the first argument that differs.
    """
    for key in keys:
        new, old = wanted.get(key), current.get(key)
        if new == old and (key in wanted) == (key in current):
            continue
        if key not in wanted and key not in current:
            continue
        received, present = _described(wanted, key), _described(current, key)
        if key in wanted and key in current and wire_type(new) == wire_type(old):
            received, present = f"'{_shown(new)}'", f"'{_shown(old)}'"
        raise errors.precondition_failed(
            f"inequivalent arg '{key}' for {what} '{name}' in vhost '{vhost}': "
            f"received {received} but current is {present}"
        )


def _described(arguments: Mapping[str, object], key: str) -> str:
    if key not in arguments:
        return "none"
    value = arguments[key]
    return f"the value '{_shown(value)}' of type '{wire_type(value)}'"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, TypedInt):
        return str(int(value))
    return str(value)
