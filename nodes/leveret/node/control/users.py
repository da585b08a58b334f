"""Users and their permissions: who may log in, and what they may do."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from leveret.broker.access import LoginRefused, check_pattern
from leveret.catalog.commands import ClearPermission, DeleteUser, PutUser, SetPermission

from .changes import Outcome, change, fresh, fresh_with, no_user
from .controls import Arguments, ControlError, Controls, NoArguments

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.catalog.model import PasswordHash, Permission

    from .parts import NodeParts

SALT_BYTES: Final = 16


class UserArguments(Arguments, frozen=True):
    """The name of a user."""

    user: str


class PasswordArguments(Arguments, frozen=True):
    """A user and its password."""

    user: str
    password: str


class TagsArguments(Arguments, frozen=True):
    """A user, and the tags that replace those it has."""

    user: str
    tags: list[str]


class VirtualHostArguments(Arguments, frozen=True):
    """The name of a virtual host."""

    vhost: str


class UserInVirtualHost(Arguments, frozen=True):
    """A user and a virtual host."""

    user: str
    vhost: str


class PermissionArguments(Arguments, frozen=True):
    """What a user may do in a virtual host: expressions over names."""

    user: str
    vhost: str
    configure: str
    write: str
    read: str


class UserSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A user as it is shown."""

    user: str
    tags: list[str]


class PermissionSeen(msgspec.Struct, frozen=True, kw_only=True):
    """What a user may do in a virtual host."""

    user: str
    vhost: str
    configure: str
    write: str
    read: str


def add_user_verbs(controls: Controls, parts: NodeParts) -> None:
    """Put the verbs into the table."""
    controls.add("add_user", PasswordArguments, partial(_add_user, parts))
    controls.add("delete_user", UserArguments, partial(_delete_user, parts))
    controls.add("change_password", PasswordArguments, partial(_change_password, parts))
    controls.add("clear_password", UserArguments, partial(_clear_password, parts))
    controls.add("authenticate_user", PasswordArguments, partial(_authenticate_user, parts))
    controls.add("set_user_tags", TagsArguments, partial(_set_user_tags, parts))
    controls.add("list_users", NoArguments, partial(_list_users, parts))
    controls.add("set_permissions", PermissionArguments, partial(_set_permissions, parts))
    controls.add("clear_permissions", UserInVirtualHost, partial(_clear_permissions, parts))
    controls.add("list_permissions", VirtualHostArguments, partial(_list_permissions, parts))
    controls.add("list_user_permissions", UserArguments, partial(_list_user_permissions, parts))


def check_patterns(*patterns: str) -> None:
    """Accept or refuse the regular expressions of a permission.

    Raises:
        ControlError: one of them is none.
    """
    for pattern in patterns:
        try:
            check_pattern(pattern)
        except ValueError as error:
            raise ControlError(
                "refused",
                str(error),
                remedy="""all names are '.*', none is ''; see the syntax of Python's `re`""",
            ) from None


async def _add_user(parts: NodeParts, arguments: PasswordArguments) -> Outcome:
    if not arguments.user:
        raise ControlError("refused", "a user needs a name")
    password = await _hashed(parts, arguments.password)
    done = await change(parts, PutUser(arguments.user, password, (), "new"))
    if done.outcome == "exists":
        raise ControlError(
            "refused",
            f'user "{arguments.user}" already exists',
            remedy="change its password with `leveret ctl change_password`",
        )
    return Outcome(outcome="created")


async def _delete_user(parts: NodeParts, arguments: UserArguments) -> Outcome:
    done = await change(parts, DeleteUser(arguments.user))
    if done.outcome == "absent":
        raise no_user(arguments.user)
    return Outcome(outcome="deleted")


async def _change_password(parts: NodeParts, arguments: PasswordArguments) -> Outcome:
    password = await _hashed(parts, arguments.password)
    await change(parts, PutUser(arguments.user, password, (), "password"))
    return Outcome(outcome="changed")


async def _clear_password(parts: NodeParts, arguments: UserArguments) -> Outcome:
    await change(parts, PutUser(arguments.user, None, (), "password"))
    return Outcome(outcome="changed")


async def _authenticate_user(parts: NodeParts, arguments: PasswordArguments) -> None:
    await fresh(parts)
    try:
        await parts.access.authenticate(
            arguments.user, arguments.password.encode(), is_loopback=True
        )
    except LoginRefused:
        raise ControlError(
            "refused",
            f'user "{arguments.user}" does not exist, or has another password',
            remedy="see `leveret ctl list_users`",
        ) from None


async def _set_user_tags(parts: NodeParts, arguments: TagsArguments) -> Outcome:
    tags = tuple(dict.fromkeys(arguments.tags))
    await change(parts, PutUser(arguments.user, None, tags, "tags"))
    return Outcome(outcome="changed")


async def _list_users(parts: NodeParts, _: NoArguments) -> list[UserSeen]:
    model = await fresh(parts)
    return sorted(
        (UserSeen(user=user.name, tags=list(user.tags)) for user in model.users()),
        key=lambda seen: seen.user,
    )


async def _set_permissions(parts: NodeParts, arguments: PermissionArguments) -> Outcome:
    check_patterns(arguments.configure, arguments.write, arguments.read)
    await change(
        parts,
        SetPermission(
            arguments.user,
            arguments.vhost,
            arguments.configure,
            arguments.write,
            arguments.read,
        ),
    )
    return Outcome(outcome="changed")


async def _clear_permissions(parts: NodeParts, arguments: UserInVirtualHost) -> Outcome:
    await fresh_with(parts, user=arguments.user, vhost=arguments.vhost)
    done = await change(parts, ClearPermission(arguments.user, arguments.vhost))
    return Outcome(outcome="exists" if done.outcome == "absent" else "deleted")


async def _list_permissions(
    parts: NodeParts, arguments: VirtualHostArguments
) -> list[PermissionSeen]:
    await fresh_with(parts, vhost=arguments.vhost)
    return _seen(parts, lambda permission: permission.vhost == arguments.vhost)


async def _list_user_permissions(
    parts: NodeParts, arguments: UserArguments
) -> list[PermissionSeen]:
    await fresh_with(parts, user=arguments.user)
    return _seen(parts, lambda permission: permission.user == arguments.user)


def _seen(parts: NodeParts, is_asked: Callable[[Permission], bool]) -> list[PermissionSeen]:
    return sorted(
        (
            PermissionSeen(
                user=p.user, vhost=p.vhost, configure=p.configure, write=p.write, read=p.read
            )
            for p in parts.catalog.model.permissions()
            if is_asked(p)
        ),
        key=lambda seen: (seen.user, seen.vhost),
    )


async def _hashed(parts: NodeParts, password: str) -> PasswordHash:
    if not password:
        raise ControlError(
            "refused",
            "an empty password lets nobody in",
            remedy="give one; without any, a client certificate can still be the way in: see"
            " `leveret ctl clear_password`",
        )
    return await parts.access.new_password(password.encode(), parts.random_bytes(SALT_BYTES))
