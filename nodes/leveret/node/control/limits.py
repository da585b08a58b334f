"""How many connections, queues and channels virtual hosts and users may have."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

import msgspec

from leveret.catalog.commands import PutUser, UpdateVirtualHost
from leveret.catalog.model import NO_LIMIT
from leveret.node.limits import (
    USER_LIMITS,
    VHOST_LIMITS,
    limit_of,
    limits_of_user,
    limits_of_vhost,
)

from .changes import Outcome, change, fresh_with
from .controls import Arguments, ControlError, Controls
from .users import VirtualHostArguments

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from .parts import NodeParts


class VirtualHostLimitsArguments(Arguments, frozen=True):
    """A virtual host, and the limits that replace those it has; a number below zero is none."""

    vhost: str
    limits: dict[str, int]


class UserLimitsArguments(Arguments, frozen=True):
    """A user, and limits; those that are not named stay. A number below zero is none."""

    user: str
    limits: dict[str, int]


class ClearUserLimitsArguments(Arguments, frozen=True):
    """A user, and which limit goes."""

    user: str
    limit: Literal["max-connections", "max-channels", "all"]


class ListVirtualHostLimitsArguments(Arguments, frozen=True):
    """Of which virtual host; None: of all."""

    vhost: str | None = None


class ListUserLimitsArguments(Arguments, frozen=True):
    """Of which user; None: of all."""

    user: str | None = None


class VirtualHostLimitsSeen(msgspec.Struct, frozen=True, kw_only=True):
    """The limits that a virtual host has."""

    vhost: str
    limits: dict[str, int]


class UserLimitsSeen(msgspec.Struct, frozen=True, kw_only=True):
    """The limits that a user has."""

    user: str
    limits: dict[str, int]


def add_limit_verbs(controls: Controls, parts: NodeParts) -> None:
    """Put the verbs into the table."""
    controls.add("set_vhost_limits", VirtualHostLimitsArguments, partial(_set_of_vhost, parts))
    controls.add("clear_vhost_limits", VirtualHostArguments, partial(_clear_of_vhost, parts))
    controls.add(
        "list_vhost_limits", ListVirtualHostLimitsArguments, partial(_list_of_vhosts, parts)
    )
    controls.add("set_user_limits", UserLimitsArguments, partial(_set_of_user, parts))
    controls.add("clear_user_limits", ClearUserLimitsArguments, partial(_clear_of_user, parts))
    controls.add("list_user_limits", ListUserLimitsArguments, partial(_list_of_users, parts))


async def _set_of_vhost(parts: NodeParts, arguments: VirtualHostLimitsArguments) -> Outcome:
    limits = _checked(arguments.limits, VHOST_LIMITS)
    return await _change_vhost(parts, arguments.vhost, limits)


async def _clear_of_vhost(parts: NodeParts, arguments: VirtualHostArguments) -> Outcome:
    return await _change_vhost(parts, arguments.vhost, {})


async def _change_vhost(parts: NodeParts, vhost: str, limits: Mapping[str, int]) -> Outcome:
    done = await change(
        parts,
        UpdateVirtualHost(
            vhost,
            connections_max=limits.get("max-connections", NO_LIMIT),
            queues_max=limits.get("max-queues", NO_LIMIT),
        ),
    )
    return Outcome(outcome="exists" if done.outcome == "exists" else "changed")


async def _list_of_vhosts(
    parts: NodeParts, arguments: ListVirtualHostLimitsArguments
) -> list[VirtualHostLimitsSeen]:
    model = await fresh_with(parts, vhost=arguments.vhost)
    seen = [
        VirtualHostLimitsSeen(vhost=vhost.name, limits=limits_of_vhost(vhost))
        for vhost in sorted(model.vhosts(), key=lambda vhost: vhost.name)
        if arguments.vhost in (None, vhost.name)
    ]
    return [one for one in seen if one.limits]


async def _set_of_user(parts: NodeParts, arguments: UserLimitsArguments) -> Outcome:
    return await _change_user(parts, arguments.user, _checked(arguments.limits, USER_LIMITS))


async def _clear_of_user(parts: NodeParts, arguments: ClearUserLimitsArguments) -> Outcome:
    names = USER_LIMITS if arguments.limit == "all" else (arguments.limit,)
    return await _change_user(parts, arguments.user, dict.fromkeys(names, NO_LIMIT))


async def _change_user(parts: NodeParts, user: str, limits: Mapping[str, int]) -> Outcome:
    done = await change(
        parts,
        PutUser(
            user,
            None,
            (),
            "limits",
            limits.get("max-connections"),
            limits.get("max-channels"),
        ),
    )
    return Outcome(outcome="exists" if done.outcome == "exists" else "changed")


async def _list_of_users(
    parts: NodeParts, arguments: ListUserLimitsArguments
) -> list[UserLimitsSeen]:
    model = await fresh_with(parts, user=arguments.user)
    seen = [
        UserLimitsSeen(user=user.name, limits=limits_of_user(user))
        for user in sorted(model.users(), key=lambda user: user.name)
        if arguments.user in (None, user.name)
    ]
    return [one for one in seen if one.limits]


def _checked(limits: Mapping[str, int], known: Collection[str]) -> dict[str, int]:
    """Return the limits, with every number below zero as `NO_LIMIT`.

    Raises:
        ControlError: there is no limit of such a name.
    """
    for name in limits:
        if name not in known:
            raise ControlError(
                "refused", f"no limit is called {name!r}", remedy=f"there are: {', '.join(known)}"
            )
    return {name: limit_of(most) for name, most in limits.items()}
