"""Topic permissions: which routing keys a user may use with a topic exchange."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec

from leveret.catalog.commands import ClearTopicPermission, SetTopicPermission

from .changes import Outcome, change, fresh_with
from .controls import Arguments, Controls
from .users import UserArguments, VirtualHostArguments, check_patterns

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.catalog.model import TopicPermission

    from .parts import NodeParts


class TopicPermissionArguments(Arguments, frozen=True):
    """Which keys a user may use with an exchange: expressions over routing keys."""

    user: str
    vhost: str
    exchange: str
    write: str
    read: str


class ClearTopicArguments(Arguments, frozen=True):
    """Whose topic permissions go: those for one exchange, or for all of the virtual host."""

    user: str
    vhost: str
    exchange: str | None = None


class TopicPermissionSeen(msgspec.Struct, frozen=True, kw_only=True):
    """Which keys a user may use with an exchange."""

    user: str
    vhost: str
    exchange: str
    write: str
    read: str


def add_topic_verbs(controls: Controls, parts: NodeParts) -> None:
    """Put the verbs into the table."""
    controls.add("set_topic_permissions", TopicPermissionArguments, partial(_set, parts))
    controls.add("clear_topic_permissions", ClearTopicArguments, partial(_clear, parts))
    controls.add("list_topic_permissions", VirtualHostArguments, partial(_list, parts))
    controls.add("list_user_topic_permissions", UserArguments, partial(_list_of_user, parts))


async def _set(parts: NodeParts, arguments: TopicPermissionArguments) -> Outcome:
    check_patterns(arguments.write, arguments.read)
    await change(
        parts,
        SetTopicPermission(
            arguments.user,
            arguments.vhost,
            arguments.exchange,
            arguments.write,
            arguments.read,
        ),
    )
    return Outcome(outcome="changed")


async def _clear(parts: NodeParts, arguments: ClearTopicArguments) -> Outcome:
    await fresh_with(parts, user=arguments.user, vhost=arguments.vhost)
    done = await change(
        parts, ClearTopicPermission(arguments.user, arguments.vhost, arguments.exchange)
    )
    return Outcome(outcome="exists" if done.outcome == "absent" else "deleted")


async def _list(parts: NodeParts, arguments: VirtualHostArguments) -> list[TopicPermissionSeen]:
    await fresh_with(parts, vhost=arguments.vhost)
    return _seen(parts, lambda permission: permission.vhost == arguments.vhost)


async def _list_of_user(parts: NodeParts, arguments: UserArguments) -> list[TopicPermissionSeen]:
    await fresh_with(parts, user=arguments.user)
    return _seen(parts, lambda permission: permission.user == arguments.user)


def _seen(
    parts: NodeParts, is_asked: Callable[[TopicPermission], bool]
) -> list[TopicPermissionSeen]:
    return sorted(
        (
            TopicPermissionSeen(
                user=p.user, vhost=p.vhost, exchange=p.exchange, write=p.write, read=p.read
            )
            for p in parts.catalog.model.topic_permissions()
            if is_asked(p)
        ),
        key=lambda seen: (seen.user, seen.vhost, seen.exchange),
    )
