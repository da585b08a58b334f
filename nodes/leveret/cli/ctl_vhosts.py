"""`leveret ctl`: virtual hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import click

from leveret.broker.arguments import QUEUE_TYPES
from leveret.cli.ctl_target import VHOST, asks, rows_of
from leveret.node.control.changes import Outcome
from leveret.node.control.virtual_hosts import VirtualHostSeen

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.cli.ctl_target import Target

F = TypeVar("F", bound="Callable[..., object]")

COLUMNS: Final = (
    "name",
    "description",
    "tags",
    "default_queue_type",
    "tracing",
    "protected_from_deletion",
    "exchanges",
    "queues",
)


def _metadata(command: F) -> F:
    """Add the options that say what is told of a virtual host."""
    options = [
        click.option("--description", metavar="TEXT", help="What it is for."),
        click.option("--tags", metavar="TAG,…", help="Tags, with commas between them."),
        click.option(
            "--default-queue-type",
            type=click.Choice(sorted(QUEUE_TYPES)),
            help="The x-queue-type of queues that are declared without.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command("add_vhost")
@click.argument("vhost")
@_metadata
@asks
def add_vhost(
    *,
    target: Target,
    vhost: str,
    description: str | None,
    tags: str | None,
    default_queue_type: str | None,
) -> None:
    """Create VHOST with the predeclared exchanges; nothing happens if it is there.

    \b
    Examples:
      leveret ctl add_vhost shop
      leveret ctl add_vhost shop --description "the shop's orders" --default-queue-type quorum
    """  # noqa: D301 - click's mark for lines that are kept as they are
    reply = target.ask(
        "add_vhost",
        Outcome,
        vhost=vhost,
        description=description,
        tags=_split(tags),
        default_queue_type=default_queue_type,
    )
    was_there = " already" if reply.outcome == "exists" else ""
    target.say(reply, f'virtual host "{vhost}" is there{was_there}')


@click.command("update_vhost_metadata")
@click.argument("vhost")
@_metadata
@asks
def update_vhost_metadata(
    *,
    target: Target,
    vhost: str,
    description: str | None,
    tags: str | None,
    default_queue_type: str | None,
) -> None:
    """Change what is told of VHOST; what no option says stays.

    Queues that are there keep their type.

    \b
    Examples:
      leveret ctl update_vhost_metadata shop --default-queue-type quorum
      leveret ctl update_vhost_metadata shop --description "orders" --tags sales,eu
    """  # noqa: D301
    reply = target.ask(
        "update_vhost_metadata",
        Outcome,
        vhost=vhost,
        description=description,
        tags=_split(tags),
        default_queue_type=default_queue_type,
    )
    target.say(reply, f'virtual host "{vhost}" has this metadata')


@click.command("enable_vhost_deletion_protection")
@click.argument("vhost")
@asks
def enable_vhost_deletion_protection(*, target: Target, vhost: str) -> None:
    """Have delete_vhost refuse to delete VHOST.

    \b
    Examples:
      leveret ctl enable_vhost_deletion_protection shop
    """  # noqa: D301
    reply = target.ask("enable_vhost_deletion_protection", Outcome, vhost=vhost)
    target.say(reply, f'virtual host "{vhost}" is protected from deletion')


@click.command("disable_vhost_deletion_protection")
@click.argument("vhost")
@asks
def disable_vhost_deletion_protection(*, target: Target, vhost: str) -> None:
    """Let VHOST be deleted again.

    \b
    Examples:
      leveret ctl disable_vhost_deletion_protection shop
    """  # noqa: D301
    reply = target.ask("disable_vhost_deletion_protection", Outcome, vhost=vhost)
    target.say(reply, f'virtual host "{vhost}" can be deleted')


@click.command("delete_vhost")
@click.argument("vhost")
@asks
def delete_vhost(*, target: Target, vhost: str) -> None:
    """Delete VHOST with its queues, their messages, its exchanges and its permissions.

    Its connections are closed.

    \b
    Examples:
      leveret ctl delete_vhost shop
    """  # noqa: D301
    reply = target.ask("delete_vhost", Outcome, vhost=vhost)
    target.say(reply, f'virtual host "{vhost}" is deleted')


@click.command("list_vhosts")
@click.argument("columns", nargs=-1, type=click.Choice(COLUMNS))
@asks
def list_vhosts(*, target: Target, columns: tuple[str, ...]) -> None:
    """List the virtual hosts: their names, or these COLUMNS.

    Columns are name, description, tags, default_queue_type, tracing, protected_from_deletion,
    exchanges and queues.

    \b
    Examples:
      leveret ctl list_vhosts
      leveret ctl list_vhosts name queues
    """  # noqa: D301
    target.show(rows_of(target.ask("list_vhosts", list[VirtualHostSeen])), columns or ("name",))


@click.command("trace_on")
@VHOST
@asks
def trace_on(*, target: Target, vhost: str) -> None:
    """Copy what is published and delivered in a virtual host to its exchange amq.rabbitmq.trace.

    Queues are bound to it with keys such as publish.EXCHANGE, deliver.QUEUE or #. It holds on all
    nodes until trace_off, and costs time.

    \b
    Examples:
      leveret ctl trace_on -p shop
    """  # noqa: D301
    target.say(target.ask("trace_on", Outcome, vhost=vhost), f"Trace enabled for vhost {vhost}")


@click.command("trace_off")
@VHOST
@asks
def trace_off(*, target: Target, vhost: str) -> None:
    """Copy nothing of a virtual host any more.

    \b
    Examples:
      leveret ctl trace_off -p shop
    """  # noqa: D301
    target.say(target.ask("trace_off", Outcome, vhost=vhost), f"Trace disabled for vhost {vhost}")


VERBS = (
    add_vhost,
    update_vhost_metadata,
    enable_vhost_deletion_protection,
    disable_vhost_deletion_protection,
    delete_vhost,
    list_vhosts,
    trace_on,
    trace_off,
)


def _split(tags: str | None) -> list[str] | None:
    """Return the tags that an option names; None if it was not given."""
    return None if tags is None else [tag.strip() for tag in tags.split(",") if tag.strip()]
