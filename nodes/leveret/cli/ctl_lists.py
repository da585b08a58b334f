"""`leveret ctl`: what is in the broker, and ending some of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from leveret.cli.ctl_target import VHOST, asks, rows_of
from leveret.node.control.changes import Outcome
from leveret.node.control.clients import (
    ChannelSeen,
    ClientSeen,
    Closed,
    ConnectionSeen,
    ConsumerSeen,
)
from leveret.node.control.cluster_wide import Listed
from leveret.node.control.entities import BindingSeen, ExchangeSeen, Purged, QueueSeen

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.cli.ctl_target import Target

COUNTS: Final = frozenset(
    {
        "messages",
        "messages_ready",
        "messages_unacknowledged",
        "consumers",
        "message_bytes",
        "dead_letter_cycles",
        "state",
    }
)
"""The columns for which the queues' leaders are asked."""


def columns_of(
    kind: type[
        QueueSeen | ExchangeSeen | BindingSeen | ConnectionSeen | ChannelSeen | ConsumerSeen
    ],
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the argument with the columns to show; they are the fields of `kind`."""
    return click.argument(
        "columns", nargs=-1, type=click.Choice(kind.__struct_fields__), metavar="[COLUMN]..."
    )


@click.command("list_queues")
@VHOST
@columns_of(QueueSeen)
@asks
def list_queues(*, target: Target, vhost: str, columns: tuple[str, ...]) -> None:
    """List the queues of a virtual host with how full they are, or these COLUMNs of them.

    \b
    Columns: name type messages messages_ready messages_unacknowledged consumers message_bytes
    state leader members online group durable auto_delete exclusive arguments policy
    operator_policy effective_policy_definition vhost

    Counts are empty if the queue has no leader now. The state is running, paused or down. The
    group is the one that replicates it, by its members; those online are there now.

    \b
    Examples:
      leveret ctl list_queues
      leveret ctl list_queues -q name messages
      leveret ctl list_queues -p shop name leader --json
    """  # noqa: D301 - click's mark for lines that are kept as they are
    chosen = columns or (
        "name",
        "type",
        "messages_ready",
        "messages_unacknowledged",
        "messages",
        "consumers",
        "leader",
    )
    listed = target.ask(
        "list_queues", Listed[QueueSeen], vhost=vhost, counts=not COUNTS.isdisjoint(chosen)
    )
    target.show(rows_of(listed.rows), chosen)
    target.warn_of(listed.silent, "the queues that they lead are without counts")


@click.command("list_exchanges")
@VHOST
@columns_of(ExchangeSeen)
@asks
def list_exchanges(*, target: Target, vhost: str, columns: tuple[str, ...]) -> None:
    """List the exchanges of a virtual host; the default one has the empty name.

    \b
    Columns: name type durable auto_delete internal arguments policy vhost

    \b
    Examples:
      leveret ctl list_exchanges
      leveret ctl list_exchanges -p shop name type arguments
    """  # noqa: D301
    rows = rows_of(target.ask("list_exchanges", list[ExchangeSeen], vhost=vhost))
    target.show(rows, columns or ("name", "type"))


@click.command("list_bindings")
@VHOST
@columns_of(BindingSeen)
@asks
def list_bindings(*, target: Target, vhost: str, columns: tuple[str, ...]) -> None:
    """List the bindings of a virtual host, those of the default exchange first.

    \b
    Columns: source_name source_kind destination_name destination_kind routing_key arguments vhost

    \b
    Examples:
      leveret ctl list_bindings
      leveret ctl list_bindings -q source_name routing_key destination_name
    """  # noqa: D301
    rows = rows_of(target.ask("list_bindings", list[BindingSeen], vhost=vhost))
    target.show(rows, columns or BindingSeen.__struct_fields__[:-1])


@click.command("list_connections")
@columns_of(ConnectionSeen)
@asks
def list_connections(*, target: Target, columns: tuple[str, ...]) -> None:
    """List the clients' connections to all nodes.

    \b
    Columns: pid user peer_host peer_port state channels name user_provided_name node vhost host
    port ssl timeout

    The pid is what close_connection takes. The state is running; blocked by an alarm; closing; or
    sending, to a client that does not read.

    \b
    Examples:
      leveret ctl list_connections
      leveret ctl list_connections pid user vhost user_provided_name
    """  # noqa: D301
    listed = target.ask("list_clients", Listed[ClientSeen])
    chosen = columns or ("pid", "user", "peer_host", "peer_port", "state", "channels")
    target.show(rows_of([client.connection for client in listed.rows]), chosen)
    target.warn_of(listed.silent, "their connections are not in the list")


@click.command("list_channels")
@columns_of(ChannelSeen)
@asks
def list_channels(*, target: Target, columns: tuple[str, ...]) -> None:
    """List the channels of all connections.

    \b
    Columns: pid user consumer_count messages_unacknowledged connection number vhost confirm
    transactional prefetch_count global_prefetch_count

    \b
    Examples:
      leveret ctl list_channels
      leveret ctl list_channels pid confirm prefetch_count
    """  # noqa: D301
    listed = target.ask("list_clients", Listed[ClientSeen])
    rows = rows_of([channel for client in listed.rows for channel in client.channels])
    target.show(rows, columns or ("pid", "user", "consumer_count", "messages_unacknowledged"))
    target.warn_of(listed.silent, "their channels are not in the list")


@click.command("list_consumers")
@VHOST
@columns_of(ConsumerSeen)
@asks
def list_consumers(*, target: Target, vhost: str, columns: tuple[str, ...]) -> None:
    """List the consumers of a virtual host.

    \b
    Columns: queue_name channel_pid consumer_tag ack_required prefetch_count priority exclusive
    vhost

    \b
    Examples:
      leveret ctl list_consumers
      leveret ctl list_consumers -p shop queue_name consumer_tag
    """  # noqa: D301
    listed = target.ask("list_clients", Listed[ClientSeen])
    consumers = [consumer for client in listed.rows for consumer in client.consumers]
    rows = rows_of([consumer for consumer in consumers if consumer.vhost == vhost])
    default = ("queue_name", "channel_pid", "consumer_tag", "ack_required", "prefetch_count")
    target.show(rows, columns or default)
    target.warn_of(listed.silent, "their consumers are not in the list")


@click.command("close_connection")
@click.argument("pid")
@click.argument("reason")
@asks
def close_connection(*, target: Target, pid: str, reason: str) -> None:
    """Close the connection PID (see list_connections), and tell its client the REASON.

    It is sent connection.close with 320 CONNECTION_FORCED; most clients connect again.

    \b
    Examples:
      leveret ctl close_connection node-1.17 "the till is being repaired"
    """  # noqa: D301
    reply = target.ask("close_connection", Closed, pid=pid, reason=reason)
    target.say(reply, f"connection {pid} is told to end")


@click.command("close_all_connections")
@VHOST
@click.option("--global", "is_global", is_flag=True, help="Of all virtual hosts.")
@click.argument("reason")
@asks
def close_all_connections(*, target: Target, vhost: str, is_global: bool, reason: str) -> None:
    """Close all connections to a virtual host, on all nodes, and tell their clients the REASON.

    \b
    Examples:
      leveret ctl close_all_connections -p shop "closed for the night"
      leveret ctl close_all_connections --global "maintenance"
    """  # noqa: D301
    listed = target.ask(
        "close_all_connections",
        Listed[Closed],
        reason=reason,
        vhost=None if is_global else vhost,
    )
    count = sum(closed.connections for closed in listed.rows)
    target.say(Closed(connections=count), f"{count} connections are told to end")
    target.warn_of(listed.silent, "their connections go on")


@click.command("purge_queue")
@VHOST
@click.argument("queue")
@asks
def purge_queue(*, target: Target, vhost: str, queue: str) -> None:
    """Remove all ready messages of QUEUE; what consumers hold stays.

    \b
    Examples:
      leveret ctl purge_queue -p shop orders
    """  # noqa: D301
    reply = target.ask("purge_queue", Purged, vhost=vhost, queue=queue)
    target.say(reply, f'{reply.messages} messages of queue "{queue}" are gone')


@click.command("delete_queue")
@VHOST
@click.option("--if-empty", "-e", is_flag=True, help="Only without messages, held ones too.")
@click.option("--if-unused", "-u", is_flag=True, help="Only without consumers.")
@click.argument("queue")
@asks
def delete_queue(
    *, target: Target, vhost: str, queue: str, if_empty: bool, if_unused: bool
) -> None:
    """Delete QUEUE with its messages and bindings; its consumers are cancelled.

    \b
    Examples:
      leveret ctl delete_queue orders --if-unused --if-empty
    """  # noqa: D301
    reply = target.ask(
        "delete_queue",
        Outcome,
        vhost=vhost,
        queue=queue,
        if_empty=if_empty,
        if_unused=if_unused,
    )
    target.say(reply, f'queue "{queue}" is deleted')


VERBS = (
    list_queues,
    list_exchanges,
    list_bindings,
    list_connections,
    list_channels,
    list_consumers,
    close_connection,
    close_all_connections,
    purge_queue,
    delete_queue,
)
