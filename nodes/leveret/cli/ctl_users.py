"""`leveret ctl`: users, and what they may do."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from leveret.cli.ctl_target import VHOST, asks, rows_of
from leveret.node.control.changes import Outcome
from leveret.node.control.users import PermissionSeen, UserSeen

if TYPE_CHECKING:
    from leveret.cli.ctl_target import Target


@click.command("add_user")
@click.argument("user")
@click.argument("password", required=False)
@asks
def add_user(*, target: Target, user: str, password: str | None) -> None:
    """Create USER, who may log in and nothing else until it has permissions.

    Without PASSWORD it is asked for, or read from the standard input if that is no terminal:
    arguments can be read by other users of the machine.

    \b
    Examples:
      leveret ctl add_user ada
      pass show ada | leveret ctl add_user ada
    """  # noqa: D301 - click's mark for lines that are kept as they are
    reply = target.ask("add_user", Outcome, user=user, password=_password(password, twice=True))
    target.say(
        reply,
        f'user "{user}" is there; let it into a virtual host with:'
        f" leveret ctl set_permissions -p / {user} '.*' '.*' '.*'",
    )


@click.command("delete_user")
@click.argument("user")
@asks
def delete_user(*, target: Target, user: str) -> None:
    """Delete USER with its permissions; its connections are closed.

    \b
    Examples:
      leveret ctl delete_user ada
    """  # noqa: D301
    target.say(target.ask("delete_user", Outcome, user=user), f'user "{user}" is deleted')


@click.command("change_password")
@click.argument("user")
@click.argument("password", required=False)
@asks
def change_password(*, target: Target, user: str, password: str | None) -> None:
    """Change the password of USER; connections that are open stay.

    Without PASSWORD it is asked for, or read from the standard input if that is no terminal.

    \b
    Examples:
      leveret ctl change_password guest
      openssl rand -base64 24 | tee secret | leveret ctl change_password ada
    """  # noqa: D301
    given = _password(password, twice=True)
    reply = target.ask("change_password", Outcome, user=user, password=given)
    target.say(reply, f'user "{user}" has another password')


@click.command("clear_password")
@click.argument("user")
@asks
def clear_password(*, target: Target, user: str) -> None:
    """Take its password from USER, who can then log in by a client certificate alone.

    \b
    Examples:
      leveret ctl clear_password ada
    """  # noqa: D301
    target.say(target.ask("clear_password", Outcome, user=user), f'user "{user}" has no password')


@click.command("authenticate_user")
@click.argument("user")
@click.argument("password", required=False)
@asks
def authenticate_user(*, target: Target, user: str, password: str | None) -> None:
    """Say whether PASSWORD is the one of USER; exit code 6 if it is not.

    Without PASSWORD it is asked for, or read from the standard input if that is no terminal.

    \b
    Examples:
      leveret ctl authenticate_user ada
    """  # noqa: D301
    given = _password(password, twice=False)
    target.ask("authenticate_user", object, user=user, password=given)
    target.say({"outcome": "authenticated"}, f'the password of user "{user}" is right')


@click.command("set_user_tags")
@click.argument("user")
@click.argument("tags", nargs=-1)
@asks
def set_user_tags(*, target: Target, user: str, tags: tuple[str, ...]) -> None:
    """Have USER have these TAGS and no others.

    RabbitMQ's are administrator, monitoring, policymaker, management and impersonator. For AMQP
    they mean nothing.

    \b
    Examples:
      leveret ctl set_user_tags ada administrator
      leveret ctl set_user_tags ada
    """  # noqa: D301
    reply = target.ask("set_user_tags", Outcome, user=user, tags=tags)
    target.say(reply, f'user "{user}" has the tags [{", ".join(tags)}]')


@click.command("list_users")
@asks
def list_users(*, target: Target) -> None:
    """List the users with their tags.

    \b
    Examples:
      leveret ctl list_users
      leveret ctl list_users --json
    """  # noqa: D301
    target.show(rows_of(target.ask("list_users", list[UserSeen])), ("user", "tags"))


@click.command("set_permissions")
@VHOST
@click.argument("user")
@click.argument("configure")
@click.argument("write")
@click.argument("read")
@asks
def set_permissions(
    *, target: Target, vhost: str, user: str, configure: str, write: str, read: str
) -> None:
    """Let USER into a virtual host, to CONFIGURE, WRITE and READ what has these names.

    Each is a regular expression, which matches anywhere in a name unless it says ^ and $; an empty
    one matches nothing. Open channels heed it at once.

    \b
    Examples:
      leveret ctl set_permissions -p / ada '.*' '.*' '.*'
      leveret ctl set_permissions -p shop till '' '^sales$' ''
    """  # noqa: D301
    reply = target.ask(
        "set_permissions",
        Outcome,
        user=user,
        vhost=vhost,
        configure=configure,
        write=write,
        read=read,
    )
    target.say(reply, f'user "{user}" has these permissions in virtual host "{vhost}"')


@click.command("clear_permissions")
@VHOST
@click.argument("user")
@asks
def clear_permissions(*, target: Target, vhost: str, user: str) -> None:
    """Take from USER all rights in a virtual host.

    \b
    Examples:
      leveret ctl clear_permissions -p shop till
    """  # noqa: D301
    reply = target.ask("clear_permissions", Outcome, user=user, vhost=vhost)
    target.say(reply, f'user "{user}" has no permissions in virtual host "{vhost}"')


@click.command("list_permissions")
@VHOST
@asks
def list_permissions(*, target: Target, vhost: str) -> None:
    """List who may do what in a virtual host.

    \b
    Examples:
      leveret ctl list_permissions -p shop
    """  # noqa: D301
    rows = rows_of(target.ask("list_permissions", list[PermissionSeen], vhost=vhost))
    target.show(rows, ("user", "configure", "write", "read"))


@click.command("list_user_permissions")
@click.argument("user")
@asks
def list_user_permissions(*, target: Target, user: str) -> None:
    """List what USER may do, in each virtual host.

    \b
    Examples:
      leveret ctl list_user_permissions ada
    """  # noqa: D301
    rows = rows_of(target.ask("list_user_permissions", list[PermissionSeen], user=user))
    target.show(rows, ("vhost", "configure", "write", "read"))


VERBS = (
    add_user,
    delete_user,
    change_password,
    clear_password,
    authenticate_user,
    set_user_tags,
    list_users,
    set_permissions,
    clear_permissions,
    list_permissions,
    list_user_permissions,
)


def _password(given: str | None, *, twice: bool) -> str:
    """Return the password: the argument, what is typed, or what is piped in."""
    if given is not None:
        return given
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=twice, err=True))
    return sys.stdin.readline().rstrip("\r\n")
