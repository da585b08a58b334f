"""`leveret ctl`: which routing keys users may use with topic exchanges."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from leveret.cli.ctl_target import VHOST, asks, rows_of
from leveret.node.control.changes import Outcome
from leveret.node.control.topic_permissions import TopicPermissionSeen

if TYPE_CHECKING:
    from leveret.cli.ctl_target import Target


@click.command("set_topic_permissions")
@VHOST
@click.argument("user")
@click.argument("exchange")
@click.argument("write")
@click.argument("read")
@asks
def set_topic_permissions(
    *, target: Target, vhost: str, user: str, exchange: str, write: str, read: str
) -> None:
    """Let USER publish to a topic EXCHANGE with WRITE's routing keys, and bind with READ's.

    Both are regular expressions, in which {username} and {vhost} stand for these names. What
    set_permissions allows is needed besides. Open channels heed it at once.

    \b
    Examples:
      leveret ctl set_topic_permissions -p shop till amq.topic '^{username}[.]' '^news[.]'
      leveret ctl set_topic_permissions ada amq.topic '.*' ''
    """  # noqa: D301 - click's mark for lines that are kept as they are
    reply = target.ask(
        "set_topic_permissions",
        Outcome,
        user=user,
        vhost=vhost,
        exchange=exchange,
        write=write,
        read=read,
    )
    target.say(
        reply,
        f'user "{user}" has these topic permissions for exchange "{exchange}"'
        f' in virtual host "{vhost}"',
    )


@click.command("clear_topic_permissions")
@VHOST
@click.argument("user")
@click.argument("exchange", required=False)
@asks
def clear_topic_permissions(*, target: Target, vhost: str, user: str, exchange: str | None) -> None:
    """Let USER use all routing keys again, with EXCHANGE or with all exchanges.

    \b
    Examples:
      leveret ctl clear_topic_permissions -p shop till amq.topic
      leveret ctl clear_topic_permissions -p shop till
    """  # noqa: D301
    reply = target.ask(
        "clear_topic_permissions", Outcome, user=user, vhost=vhost, exchange=exchange
    )
    of_exchange = "" if exchange is None else f' for exchange "{exchange}"'
    target.say(
        reply, f'user "{user}" has no topic permissions{of_exchange} in virtual host "{vhost}"'
    )


@click.command("list_topic_permissions")
@VHOST
@asks
def list_topic_permissions(*, target: Target, vhost: str) -> None:
    """List which routing keys users may use with the topic exchanges of a virtual host.

    \b
    Examples:
      leveret ctl list_topic_permissions -p shop
    """  # noqa: D301
    rows = rows_of(target.ask("list_topic_permissions", list[TopicPermissionSeen], vhost=vhost))
    target.show(rows, ("user", "exchange", "write", "read"))


@click.command("list_user_topic_permissions")
@click.argument("user")
@asks
def list_user_topic_permissions(*, target: Target, user: str) -> None:
    """List which routing keys USER may use with topic exchanges, in each virtual host.

    \b
    Examples:
      leveret ctl list_user_topic_permissions till
    """  # noqa: D301
    rows = rows_of(target.ask("list_user_topic_permissions", list[TopicPermissionSeen], user=user))
    target.show(rows, ("vhost", "exchange", "write", "read"))


VERBS = (
    set_topic_permissions,
    clear_topic_permissions,
    list_topic_permissions,
    list_user_topic_permissions,
)
