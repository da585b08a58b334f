"""The limits of virtual hosts and users by the names that RabbitMQ gives them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from leveret.catalog.model import NO_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from leveret.catalog.model import User, VirtualHost

VHOST_LIMITS: Final = ("max-connections", "max-queues")
USER_LIMITS: Final = ("max-connections", "max-channels")


def limits_of_vhost(vhost: VirtualHost) -> dict[str, int]:
    """Return the limits that a virtual host has."""
    return _limits(zip(VHOST_LIMITS, (vhost.connections_max, vhost.queues_max), strict=True))


def limits_of_user(user: User) -> dict[str, int]:
    """Return the limits that a user has."""
    return _limits(zip(USER_LIMITS, (user.connections_max, user.channels_max), strict=True))


def limit_of(number: int | None) -> int:
    """Return the catalog's form of a limit; RabbitMQ takes a number below zero as none."""
    return NO_LIMIT if number is None or number < 0 else number


def _limits(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    return {name: most for name, most in pairs if most != NO_LIMIT}
