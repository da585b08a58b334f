"""`leveret ctl`: policies and operator policies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, get_args

import click

from leveret.catalog.model import ApplyTo
from leveret.cli.ctl_target import VHOST, asks, rows_of
from leveret.node.control.changes import Outcome
from leveret.node.control.policies import PolicySeen

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.cli.ctl_target import Target

COLUMNS: Final = ("vhost", "name", "pattern", "apply-to", "definition", "priority")


def _policy(command: Callable[..., None]) -> Callable[..., None]:
    """Add what a policy has."""
    for parameter in (
        click.argument("definition"),
        click.argument("pattern"),
        click.argument("name"),
        click.option(
            "--apply-to",
            type=click.Choice(get_args(ApplyTo)),
            default="all",
            show_default=True,
            help="What it is for.",
        ),
        click.option(
            "--priority",
            type=int,
            default=0,
            show_default=True,
            help="Of several that match, the one with the highest counts.",
        ),
        VHOST,
    ):
        command = parameter(command)
    return command


@click.command("set_policy")
@_policy
@asks
def set_policy(*, target: Target, name: str, **policy: object) -> None:
    """Have all queues and exchanges whose names match PATTERN go by DEFINITION, from now on.

    PATTERN is a regular expression, which matches anywhere in a name unless it says ^ and $. The
    DEFINITION is a JSON object with settings such as max-length, message-ttl,
    dead-letter-exchange or alternate-exchange. One policy counts for a queue: the one with the
    highest priority. A policy of that NAME is replaced.

    \b
    Examples:
      leveret ctl set_policy limits '^orders' '{"max-length":100000}' --apply-to queues
      leveret ctl set_policy -p shop --priority 7 dead '.*' '{"dead-letter-exchange":"dlx"}'
    """  # noqa: D301 - click's mark for lines that are kept as they are
    reply = target.ask("set_policy", Outcome, name=name, **policy)
    target.say(reply, f'policy "{name}" is in force')


@click.command("set_operator_policy")
@_policy
@asks
def set_operator_policy(*, target: Target, name: str, **policy: object) -> None:
    """Limit all queues whose names match PATTERN by DEFINITION, whatever else is set for them.

    As set_policy, but beside the policy that a queue has: of two numbers the smaller counts. It may
    set delivery-limit, expires, max-length, max-length-bytes, message-ttl, overflow, and what is
    like them.

    \b
    Examples:
      leveret ctl set_operator_policy cap '.*' '{"max-length":1000000}' --apply-to queues
    """  # noqa: D301
    reply = target.ask("set_policy", Outcome, name=name, is_operator=True, **policy)
    target.say(reply, f'operator policy "{name}" is in force')


@click.command("clear_policy")
@VHOST
@click.argument("name")
@asks
def clear_policy(*, target: Target, vhost: str, name: str) -> None:
    """Delete the policy NAME; the queues and exchanges that had it go by the next one, or none.

    \b
    Examples:
      leveret ctl clear_policy -p shop dead
    """  # noqa: D301
    reply = target.ask("clear_policy", Outcome, vhost=vhost, name=name)
    target.say(reply, f'policy "{name}" is deleted')


@click.command("clear_operator_policy")
@VHOST
@click.argument("name")
@asks
def clear_operator_policy(*, target: Target, vhost: str, name: str) -> None:
    """Delete the operator policy NAME; likewise.

    \b
    Examples:
      leveret ctl clear_operator_policy cap
    """  # noqa: D301
    reply = target.ask("clear_policy", Outcome, vhost=vhost, name=name, is_operator=True)
    target.say(reply, f'operator policy "{name}" is deleted')


@click.command("list_policies")
@VHOST
@asks
def list_policies(*, target: Target, vhost: str) -> None:
    """List the policies of a virtual host, the highest priority first.

    \b
    Examples:
      leveret ctl list_policies
      leveret ctl list_policies -p shop --json
    """  # noqa: D301
    target.show(rows_of(target.ask("list_policies", list[PolicySeen], vhost=vhost)), COLUMNS)


@click.command("list_operator_policies")
@VHOST
@asks
def list_operator_policies(*, target: Target, vhost: str) -> None:
    """List the operator policies of a virtual host, likewise.

    \b
    Examples:
      leveret ctl list_operator_policies
    """  # noqa: D301
    listed = target.ask("list_policies", list[PolicySeen], vhost=vhost, is_operator=True)
    target.show(rows_of(listed), COLUMNS)


VERBS = (
    set_policy,
    clear_policy,
    list_policies,
    set_operator_policy,
    clear_operator_policy,
    list_operator_policies,
)
