"""Asking the leader of a queue for what only it knows or may do, from whatever node was asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar, cast

import trio

from leveret.actors import ActorStopped
from leveret.broker.messages import (
    LeadAction,
    NotForStreams,
    NotLeading,
    QueueGone,
    QueueRequest,
)
from leveret.transport import NodeId

from .changes import fresh_with
from .controls import Arguments, ControlError

if TYPE_CHECKING:
    from leveret.actors import Ref
    from leveret.catalog.model import Queue

    from .admin import Admin
    from .parts import NodeParts

R = TypeVar("R")

LEADER_WITHIN_S: Final = 5.0
"""How long a leader is looked for."""
LOOK_S: Final = 0.05
"""How often, while the one that was asked does not lead any more."""


class QueueArguments(Arguments, frozen=True):
    """The name of a queue."""

    vhost: str
    queue: str


async def ask_actor(parts: NodeParts, queue: Queue, request: QueueRequest[R]) -> R:
    """Ask a queue's actor on this node, which passes it on to the leader.

    Raises:
        ControlError: it has none now, or is deleted.
    """
    try:
        return await _ask(parts, queue, request)
    except trio.TooSlowError:
        raise _no_leader(queue) from None
    finally:
        request.is_withdrawn = True


async def act_here(parts: NodeParts, uid: int, action: LeadAction[R]) -> R:
    """Have this node do what it is asked to do as the leader of a queue.

    Raises:
        ControlError: it does not lead, or the queue is deleted.
    """
    queue = parts.catalog.model.queue_by_uid(uid)
    if queue is None:
        raise _NOT_LEADING  # its catalog may be behind that of the node that asks
    try:
        return await _ask(parts, queue, action)
    except NotLeading:
        raise _NOT_LEADING from None
    except NotForStreams:
        raise ControlError("refused", f'queue "{queue.name}" is a stream') from None
    except trio.TooSlowError:
        raise _no_leader(queue) from None


async def ask_leader(
    parts: NodeParts, admin: Admin, queue: Queue, do: str, kind: type[R], **arguments: object
) -> R:
    """Have the node that leads `queue` do something; it is asked about the queue's `uid`.

    Raises:
        ControlError: there is no leader now, or it refused.
    """
    with trio.move_on_after(LEADER_WITHIN_S):
        while True:
            leader = _leader(parts, queue)
            if leader is not None:
                try:
                    return await admin.ask(
                        NodeId(leader),
                        do,
                        kind,
                        within_s=LEADER_WITHIN_S,
                        uid=queue.uid,
                        **arguments,
                    )
                except ControlError as error:
                    if error.text != _NOT_LEADING.text:
                        raise
            await trio.sleep(LOOK_S)
    raise _no_leader(queue)


async def find_queue(parts: NodeParts, vhost: str, name: str) -> Queue:
    """Return a queue as it is now.

    Raises:
        ControlError: there is none of that name, or no majority to say so.
    """
    queue = (await fresh_with(parts, vhost=vhost)).queue(vhost, name)
    if queue is None:
        raise no_queue(vhost, name)
    return queue


def no_queue(vhost: str, name: str) -> ControlError:
    """Return the error about a queue that is not there."""
    return ControlError(
        "not_found",
        f'no queue "{name}" in virtual host "{vhost}"',
        remedy="see `leveret ctl list_queues`",
    )


async def _ask(parts: NodeParts, queue: Queue, request: QueueRequest[R] | LeadAction[R]) -> R:
    ref = parts.directory.queue(queue.uid)
    if ref is None:
        raise no_queue(queue.vhost, queue.name)
    try:
        return await cast("Ref[QueueRequest[R] | LeadAction[R]]", ref).ask(
            request, within_s=LEADER_WITHIN_S
        )
    except (QueueGone, ActorStopped):
        raise no_queue(queue.vhost, queue.name) from None


def _leader(parts: NodeParts, queue: Queue) -> int | None:
    return parts.replicas.groups[queue.shard].leader if queue.shard else queue.home


def _no_leader(queue: Queue) -> ControlError:
    return ControlError(
        "unavailable",
        f'queue "{queue.name}" has no leader: its node, or a majority of the nodes, is down',
        remedy="look at `leveret ctl cluster status`",
    )


_NOT_LEADING: Final = ControlError("unavailable", "this node does not lead the queue")
