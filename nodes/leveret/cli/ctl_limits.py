"""`leveret ctl`: how many connections, queues and channels virtual hosts and users may have."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from leveret.cli.ctl_target import VHOST, asks
from leveret.node.control.changes import Outcome
from leveret.node.control.limits import UserLimitsSeen, VirtualHostLimitsSeen
from leveret.node.limits import USER_LIMITS

if TYPE_CHECKING:
    from leveret.cli.ctl_target import Target


@click.command("set_vhost_limits")
@VHOST
@click.argument("limits")
@asks
def set_vhost_limits(*, target: Target, vhost: str, limits: str) -> None:
    """Give a virtual host these LIMITS and no others: a JSON object.

    max-connections and max-queues are counted over all nodes; a number below zero is no limit.
    What is there stays, however much it is.

    \b
    Examples:
      leveret ctl set_vhost_limits -p shop '{"max-connections": 100, "max-queues": 1000}'
    """  # noqa: D301 - click's mark for lines that are kept as they are
    reply = target.ask("set_vhost_limits", Outcome, vhost=vhost, limits=_numbers(limits))
    target.say(reply, f'virtual host "{vhost}" has these limits')


@click.command("clear_vhost_limits")
@VHOST
@asks
def clear_vhost_limits(*, target: Target, vhost: str) -> None:
    """Take all limits from a virtual host.

    \b
    Examples:
      leveret ctl clear_vhost_limits -p shop
    """  # noqa: D301
    reply = target.ask("clear_vhost_limits", Outcome, vhost=vhost)
    target.say(reply, f'virtual host "{vhost}" has no limits')


@click.command("list_vhost_limits")
@click.option("-p", "--vhost", metavar="VHOST", help="Virtual host; all if there is none.")
@asks
def list_vhost_limits(*, target: Target, vhost: str | None) -> None:
    """List the limits of virtual hosts.

    \b
    Examples:
      leveret ctl list_vhost_limits
      leveret ctl list_vhost_limits -p shop
    """  # noqa: D301
    seen = target.ask("list_vhost_limits", list[VirtualHostLimitsSeen], vhost=vhost)
    rows = [{"vhost": one.vhost, "limits": json.dumps(one.limits)} for one in seen]
    target.show(rows, ("vhost", "limits"))


@click.command("set_user_limits")
@click.argument("user")
@click.argument("limits")
@asks
def set_user_limits(*, target: Target, user: str, limits: str) -> None:
    """Give USER these LIMITS: a JSON object. Others that it has stay.

    max-connections and max-channels are counted over all nodes; a number below zero is no limit.

    \b
    Examples:
      leveret ctl set_user_limits till '{"max-connections": 2, "max-channels": 10}'
    """  # noqa: D301
    reply = target.ask("set_user_limits", Outcome, user=user, limits=_numbers(limits))
    target.say(reply, f'user "{user}" has these limits')


@click.command("clear_user_limits")
@click.argument("user")
@click.argument("limit", type=click.Choice([*USER_LIMITS, "all"]))
@asks
def clear_user_limits(*, target: Target, user: str, limit: str) -> None:
    """Take a LIMIT from USER, or all.

    \b
    Examples:
      leveret ctl clear_user_limits till max-channels
      leveret ctl clear_user_limits till all
    """  # noqa: D301
    reply = target.ask("clear_user_limits", Outcome, user=user, limit=limit)
    target.say(reply, f'user "{user}" has that limit no more')


@click.command("list_user_limits")
@click.option("--user", metavar="USER", help="User; all if there is none.")
@asks
def list_user_limits(*, target: Target, user: str | None) -> None:
    """List the limits of users.

    \b
    Examples:
      leveret ctl list_user_limits
      leveret ctl list_user_limits --user till
    """  # noqa: D301
    seen = target.ask("list_user_limits", list[UserLimitsSeen], user=user)
    rows = [{"user": one.user, "limits": json.dumps(one.limits)} for one in seen]
    target.show(rows, ("user", "limits"))


VERBS = (
    set_vhost_limits,
    clear_vhost_limits,
    list_vhost_limits,
    set_user_limits,
    clear_user_limits,
    list_user_limits,
)


def _numbers(text: str) -> dict[str, int]:
    """Return limits by their names.

    Raises:
        UsageError: it is no JSON object of numbers.
    """
    try:
        limits = json.loads(text)
    except ValueError:
        limits = None
    if not isinstance(limits, dict) or not all(type(most) is int for most in limits.values()):
        raise click.UsageError(
            f"limits are a JSON object of whole numbers such as '{{\"max-connections\": 10}}',"
            f" not {text!r}"
        )
    return limits
