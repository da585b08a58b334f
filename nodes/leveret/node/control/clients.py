"""Connections, channels and consumers: each node tells its own, and ends them.

A connection is called by its node's name and its number there, `node-1.17`: unique until that
node starts again.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from leveret.actors import ActorStopped
from leveret.broker.connections.descriptions import ConnectionDescription, Describe
from leveret.transport import NodeId

from .cluster_wide import Listed, ask_each
from .controls import Arguments, ControlError, Controls, NoArguments
from .naming import find_member

if TYPE_CHECKING:
    from leveret.broker.connections.listener import Client

    from .admin import Admin
    from .parts import NodeParts

DESCRIBE_WITHIN_S: Final = 1.0
"""A connection that has not told by then is shown without its channels: it waits for a client that
does not read."""
TELL_WITHIN_S: Final = 4.0
END_WITHIN_S: Final = 4.0


class ConsumerSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A consumer; names and order of the fields are rabbitmqctl's columns."""

    queue_name: str
    channel_pid: str
    consumer_tag: str
    ack_required: bool
    prefetch_count: int
    priority: int
    exclusive: bool
    vhost: str


class ChannelSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A channel; likewise."""

    pid: str
    user: str
    consumer_count: int
    messages_unacknowledged: int
    connection: str
    number: int
    vhost: str
    confirm: bool
    transactional: bool
    prefetch_count: int
    global_prefetch_count: int


class ConnectionSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A connection; likewise.

    `state` is running, blocked (by an alarm), closing, or sending: to a client that does not read,
    and then nobody knows of its channels.
    """

    pid: str
    user: str
    peer_host: str
    peer_port: int
    state: str
    channels: int | None
    name: str
    user_provided_name: str
    node: str
    vhost: str
    host: str
    port: int
    ssl: bool
    timeout: int
    """The heartbeat, in seconds; 0 without."""


class ClientSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A connection with what it has."""

    connection: ConnectionSeen
    channels: list[ChannelSeen]
    consumers: list[ConsumerSeen]


class CloseArguments(Arguments, frozen=True):
    """The connection to end, and why, for its client."""

    pid: str
    reason: str


class CloseNumberArguments(Arguments, frozen=True):
    """A connection of the asked node."""

    number: int
    reason: str


class CloseAllArguments(Arguments, frozen=True):
    """Why all connections end; `vhost` None means those to all virtual hosts."""

    reason: str
    vhost: str | None = None


class Closed(msgspec.Struct, frozen=True, kw_only=True):
    """How many connections were told to end."""

    connections: int


def add_client_verbs(controls: Controls, parts: NodeParts, admin: Admin) -> None:
    """Put the verbs into the table."""
    controls.add("list_clients", NoArguments, partial(_list_clients, parts, admin))
    controls.add("close_connection", CloseArguments, partial(_close, parts, admin))
    controls.add("close_all_connections", CloseAllArguments, partial(_close_all, parts, admin))
    controls.add("node list_clients", NoArguments, partial(_list_here, parts))
    controls.add("node close_connection", CloseNumberArguments, partial(_close_here, parts))
    controls.add("node close_all_connections", CloseAllArguments, partial(_close_all_here, parts))


async def _list_clients(parts: NodeParts, admin: Admin, _: NoArguments) -> Listed[ClientSeen]:
    told, silent = await ask_each(
        parts, admin, "node list_clients", list[ClientSeen], within_s=TELL_WITHIN_S
    )
    return Listed(
        rows=[client for node in sorted(told) for client in told[node]],
        silent=silent,
    )


async def _list_here(parts: NodeParts, _: NoArguments) -> list[ClientSeen]:
    clients = parts.listener.clients()
    described: dict[int, ConnectionDescription] = {}

    async def describe(client: Client) -> None:
        try:
            described[client.session.number] = await client.ref.ask(
                Describe(), within_s=DESCRIBE_WITHIN_S
            )
        except (ActorStopped, trio.TooSlowError):
            return

    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(describe, client)
    return [_seen(parts, client, described.get(client.session.number)) for client in clients]


def _seen(parts: NodeParts, client: Client, described: ConnectionDescription | None) -> ClientSeen:
    session, node = client.session, parts.identity.name
    pid = f"{node}.{session.number}"
    channels = described.channels if described is not None else []
    return ClientSeen(
        connection=ConnectionSeen(
            pid=pid,
            user=session.user,
            peer_host=client.peer[0],
            peer_port=client.peer[1],
            state=described.state if described is not None else "sending",
            channels=len(channels) if described is not None else None,
            name=session.name,
            user_provided_name=session.client_name,
            node=node,
            vhost=session.vhost,
            host=client.here[0],
            port=client.here[1],
            ssl=client.is_tls,
            timeout=session.heartbeat_s,
        ),
        channels=[
            ChannelSeen(
                pid=f"{pid}.{channel.number}",
                user=session.user,
                consumer_count=len(channel.consumers),
                messages_unacknowledged=channel.unacknowledged,
                connection=pid,
                number=channel.number,
                vhost=session.vhost,
                confirm=channel.confirm,
                transactional=channel.transactional,
                prefetch_count=channel.prefetch,
                global_prefetch_count=channel.global_prefetch,
            )
            for channel in channels
        ],
        consumers=[
            ConsumerSeen(
                queue_name=queue.name,
                channel_pid=f"{pid}.{channel.number}",
                consumer_tag=consumer.tag,
                ack_required=consumer.ack_required,
                prefetch_count=consumer.prefetch,
                priority=consumer.priority,
                exclusive=consumer.exclusive,
                vhost=session.vhost,
            )
            for channel in channels
            for consumer in channel.consumers
            if (queue := parts.catalog.model.queue_by_uid(consumer.uid)) is not None
        ],
    )


async def _close(parts: NodeParts, admin: Admin, arguments: CloseArguments) -> Closed:
    name, dot, number = arguments.pid.rpartition(".")
    if not dot or not number.isdecimal():
        raise ControlError(
            "refused",
            f"{arguments.pid!r} is no connection; they are called such as node-1.17",
            remedy="see the column pid of `leveret ctl list_connections pid name`",
        )
    node = find_member(parts, name)
    return await admin.ask(
        NodeId(node.id),
        "node close_connection",
        Closed,
        within_s=END_WITHIN_S,
        number=int(number),
        reason=arguments.reason,
    )


async def _close_here(parts: NodeParts, arguments: CloseNumberArguments) -> Closed:
    for client in parts.listener.clients():
        if client.session.number == arguments.number:
            client.close(arguments.reason)
            return Closed(connections=1)
    raise ControlError(
        "not_found",
        f"no connection {parts.identity.name}.{arguments.number}",
        remedy="see the column pid of `leveret ctl list_connections pid name`",
    )


async def _close_all(
    parts: NodeParts, admin: Admin, arguments: CloseAllArguments
) -> Listed[Closed]:
    told, silent = await ask_each(
        parts,
        admin,
        "node close_all_connections",
        Closed,
        within_s=END_WITHIN_S,
        reason=arguments.reason,
        vhost=arguments.vhost,
    )
    return Listed(rows=[told[node] for node in sorted(told)], silent=silent)


async def _close_all_here(parts: NodeParts, arguments: CloseAllArguments) -> Closed:
    chosen = [
        client
        for client in parts.listener.clients()
        if arguments.vhost is None or client.session.vhost == arguments.vhost
    ]
    for client in chosen:
        client.close(arguments.reason)
    return Closed(connections=len(chosen))
