"""Queues, exchanges and bindings: what there is, and how full the queues are.

How full a queue is knows its leader, so each node tells of those that it leads.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
import trio

from leveret.broker.messages import Count, Purge, QueueGone, tell
from leveret.catalog.commands import DeleteQueue
from leveret.node.plain_tables import plain_arguments

from .changes import Outcome, change, fresh_with
from .cluster_wide import Listed, ask_each
from .controls import Arguments, ControlError, Controls
from .queue_leaders import QueueArguments, ask_actor, find_queue, no_queue
from .users import VirtualHostArguments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leveret.catalog.model import Policy, Queue

    from .admin import Admin
    from .parts import NodeParts

COUNT_WITHIN_S: Final = 2.0
"""A queue that has not told how full it is by then is shown without: its leader changes."""
TELL_WITHIN_S: Final = 4.0


class QueuesArguments(Arguments, frozen=True):
    """Which queues to list, and whether to ask how full they are."""

    vhost: str
    counts: bool = True


class DeleteQueueArguments(Arguments, frozen=True):
    """The queue to delete, and what it must be for that."""

    vhost: str
    queue: str
    if_empty: bool = False
    if_unused: bool = False


class QueueFill(msgspec.Struct, frozen=True, array_like=True):
    """How full a queue is."""

    uid: int
    ready: int
    unacknowledged: int
    consumers: int
    message_bytes: int = 0
    is_paused: bool = False
    cycles: int = 0


class QueueSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A queue; the names of the fields are rabbitmqctl's columns, but for group.

    The counts are None if nobody told them. `leader` is the node that has the queue, None without;
    `group` is the Raft group that replicates it, None if it is on that node alone. `members` are
    the nodes that keep it, `online` those of them that are there. `message_bytes` are those of
    stored messages with their properties. `dead_letter_cycles` are the dead letters that its node
    dropped, since it leads, because they would have gone round.
    """

    name: str
    type: str
    messages: int | None
    messages_ready: int | None
    messages_unacknowledged: int | None
    consumers: int | None
    message_bytes: int | None
    dead_letter_cycles: int | None
    state: Literal["running", "paused", "down"]
    leader: str | None
    members: list[str]
    online: list[str]
    group: int | None
    durable: bool
    auto_delete: bool
    exclusive: bool
    arguments: dict[str, object]
    policy: str | None
    operator_policy: str | None
    effective_policy_definition: dict[str, Any]
    """What the two say together; an argument goes before it, or the smaller number counts."""
    vhost: str


class ExchangeSeen(msgspec.Struct, frozen=True, kw_only=True):
    """An exchange; likewise."""

    name: str
    type: str
    durable: bool
    auto_delete: bool
    internal: bool
    arguments: dict[str, object]
    policy: str | None
    vhost: str


class BindingSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A binding; likewise."""

    source_name: str
    source_kind: str
    destination_name: str
    destination_kind: str
    routing_key: str
    arguments: dict[str, object]
    vhost: str


class Purged(msgspec.Struct, frozen=True, kw_only=True):
    """How many messages went."""

    messages: int


def add_entity_verbs(controls: Controls, parts: NodeParts, admin: Admin) -> None:
    """Put the verbs into the table."""
    controls.add("list_queues", QueuesArguments, partial(_list_queues, parts, admin))
    controls.add("list_exchanges", VirtualHostArguments, partial(_list_exchanges, parts))
    controls.add("list_bindings", VirtualHostArguments, partial(_list_bindings, parts))
    controls.add("purge_queue", QueueArguments, partial(_purge_queue, parts))
    controls.add("delete_queue", DeleteQueueArguments, partial(_delete_queue, parts))
    controls.add("node count_queues", VirtualHostArguments, partial(_count_here, parts))


async def _list_queues(
    parts: NodeParts, admin: Admin, arguments: QueuesArguments
) -> Listed[QueueSeen]:
    model = await fresh_with(parts, vhost=arguments.vhost)
    fills: dict[int, QueueFill] = {}
    silent: list[str] = []
    if arguments.counts:
        told, silent = await ask_each(
            parts,
            admin,
            "node count_queues",
            list[QueueFill],
            within_s=TELL_WITHIN_S,
            vhost=arguments.vhost,
        )
        fills = {fill.uid: fill for of_node in told.values() for fill in of_node}
    queues = sorted(model.queues(arguments.vhost), key=lambda queue: queue.name)
    groups = {queue.shard for queue in queues if queue.shard}
    voters = {group: sorted(parts.replicas.groups[group].status().voters) for group in groups}
    return Listed(
        rows=[
            _queue_seen(parts, admin, queue, fills.get(queue.uid), voters.get(queue.shard))
            for queue in queues
        ],
        silent=silent,
    )


def _queue_seen(
    parts: NodeParts,
    admin: Admin,
    queue: Queue,
    fill: QueueFill | None,
    voters: Sequence[int] | None,
) -> QueueSeen:
    arguments = plain_arguments(queue.arguments)
    leader: int | None = queue.home
    if queue.shard:
        leader = parts.replicas.groups[queue.shard].leader
    if leader is not None and leader != admin.node and leader not in admin.others:
        leader = None
    in_force = parts.directory.policies.of_queue(queue)
    node = parts.catalog.model.node(leader) if leader is not None else None
    state: Literal["running", "paused", "down"] = "running" if node is not None else "down"
    if fill is not None and fill.is_paused:
        state = "paused"
    members = [queue.home] if voters is None else voters
    known = [member for number in members if (member := parts.catalog.model.node(number))]
    return QueueSeen(
        name=queue.name,
        type=str(arguments.get("x-queue-type", "classic")),
        messages=fill.ready + fill.unacknowledged if fill else None,
        messages_ready=fill.ready if fill else None,
        messages_unacknowledged=fill.unacknowledged if fill else None,
        consumers=fill.consumers if fill else None,
        message_bytes=fill.message_bytes if fill else None,
        dead_letter_cycles=fill.cycles if fill else None,
        state=state,
        leader=node.name if node is not None else None,
        members=[member.name for member in known],
        online=[m.name for m in known if m.id == admin.node or m.id in admin.others],
        group=queue.shard or None,
        durable=queue.durable,
        auto_delete=queue.auto_delete,
        exclusive=queue.exclusive,
        arguments=arguments,
        policy=_name_of(in_force.policy),
        operator_policy=_name_of(in_force.operator_policy),
        effective_policy_definition=dict(parts.directory.policies.definition(queue)),
        vhost=queue.vhost,
    )


def _name_of(policy: Policy | None) -> str | None:
    return None if policy is None else policy.name


async def _count_here(parts: NodeParts, arguments: VirtualHostArguments) -> list[QueueFill]:
    """Return how full the queues are that this node leads."""
    here = parts.identity.node
    asked: list[tuple[int, Count]] = []
    for queue in list(parts.catalog.model.queues(arguments.vhost)):
        leads = parts.replicas.groups[queue.shard].is_leader if queue.shard else queue.home == here
        ref = parts.directory.queue(queue.uid) if leads else None
        count = Count()
        if ref is not None and tell(ref, count):
            asked.append((queue.uid, count))
    fills = []
    with trio.move_on_after(COUNT_WITHIN_S):
        for uid, count in asked:
            try:
                counts = await count.answered()
            except QueueGone:
                continue
            state = parts.directory.state(uid)
            fills.append(
                QueueFill(
                    uid,
                    counts.ready,
                    counts.unacked,
                    counts.consumers,
                    state.size_bytes if state else 0,
                    bool(state and state.is_paused),
                    parts.directory.cycles(uid),
                )
            )
    for _, count in asked:
        count.is_withdrawn = True
    return fills


async def _list_exchanges(parts: NodeParts, arguments: VirtualHostArguments) -> list[ExchangeSeen]:
    model = await fresh_with(parts, vhost=arguments.vhost)
    return [
        ExchangeSeen(
            name=exchange.name,
            type=exchange.type,
            durable=exchange.durable,
            auto_delete=exchange.auto_delete,
            internal=exchange.internal,
            arguments=plain_arguments(exchange.arguments),
            policy=_name_of(parts.directory.policies.of_exchange(exchange)),
            vhost=exchange.vhost,
        )
        for exchange in sorted(model.exchanges(arguments.vhost), key=lambda one: one.name)
    ]


async def _list_bindings(parts: NodeParts, arguments: VirtualHostArguments) -> list[BindingSeen]:
    model = await fresh_with(parts, vhost=arguments.vhost)
    to_queues = [
        # Nobody made these: the default exchange has them by its nature.
        BindingSeen(
            source_name="",
            source_kind="exchange",
            destination_name=queue.name,
            destination_kind="queue",
            routing_key=queue.name,
            arguments={},
            vhost=queue.vhost,
        )
        for queue in sorted(model.queues(arguments.vhost), key=lambda queue: queue.name)
    ]
    made = [
        BindingSeen(
            source_name=binding.source,
            source_kind="exchange",
            destination_name=binding.destination,
            destination_kind=binding.kind,
            routing_key=binding.routing_key,
            arguments=plain_arguments(binding.arguments),
            vhost=binding.vhost,
        )
        for binding in model.bindings()
        if binding.vhost == arguments.vhost
    ]
    made.sort(key=lambda one: (one.source_name, one.destination_name, one.routing_key))
    return to_queues + made


async def _purge_queue(parts: NodeParts, arguments: QueueArguments) -> Purged:
    queue = await find_queue(parts, arguments.vhost, arguments.queue)
    return Purged(messages=await ask_actor(parts, queue, Purge()))


async def _delete_queue(parts: NodeParts, arguments: DeleteQueueArguments) -> Outcome:
    queue = await find_queue(parts, arguments.vhost, arguments.queue)
    if arguments.if_empty or arguments.if_unused:
        counts = await ask_actor(parts, queue, Count())
        if arguments.if_empty and counts.ready + counts.unacked:
            raise ControlError(
                "refused",
                f'queue "{queue.name}" has {counts.ready + counts.unacked} messages',
                remedy="purge it first, or leave out --if-empty",
            )
        if arguments.if_unused and counts.consumers:
            raise ControlError(
                "refused",
                f'queue "{queue.name}" has {counts.consumers} consumers',
                remedy="see `leveret ctl list_consumers`, or leave out --if-unused",
            )
    done = await change(parts, DeleteQueue(queue.vhost, queue.name, queue.uid))
    if done.outcome == "absent":
        raise no_queue(queue.vhost, queue.name)
    return Outcome(outcome="deleted")
