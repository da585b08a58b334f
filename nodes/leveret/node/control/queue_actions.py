"""What an operator does with a queue's messages: pausing, cancelling; its leader does it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec

from leveret.broker.queues.operating import CANCEL_MAX, Busy, CancelDelayed, Pause

from .controls import Arguments, ControlError, Controls
from .queue_leaders import QueueArguments, act_here, ask_leader, find_queue

if TYPE_CHECKING:
    from .admin import Admin
    from .parts import NodeParts


class PauseHereArguments(Arguments, frozen=True):
    """A queue that the asked node leads, and what it is to be."""

    uid: int
    is_paused: bool


class CancelDelayedArguments(Arguments, frozen=True):
    """The delayed message to end, or with None all of them."""

    vhost: str
    queue: str
    sequence: int | None = None


class CancelHereArguments(Arguments, frozen=True):
    """The same, of a queue that the asked node leads."""

    uid: int
    sequence: int | None


class PauseDone(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the queue is paused now, and whether it was not before."""

    is_paused: bool
    is_changed: bool


class Cancelled(msgspec.Struct, frozen=True, kw_only=True):
    """How many delayed messages are gone."""

    messages: int


def add_action_verbs(controls: Controls, parts: NodeParts, admin: Admin) -> None:
    """Put the verbs into the table."""
    controls.add("pause_queue", QueueArguments, partial(_pause, parts, admin, is_paused=True))
    controls.add("resume_queue", QueueArguments, partial(_pause, parts, admin, is_paused=False))
    controls.add("cancel_delayed", CancelDelayedArguments, partial(_cancel, parts, admin))
    controls.add("node pause_queue", PauseHereArguments, partial(_pause_here, parts))
    controls.add("node cancel_delayed", CancelHereArguments, partial(_cancel_here, parts))


async def _pause(
    parts: NodeParts, admin: Admin, arguments: QueueArguments, *, is_paused: bool
) -> PauseDone:
    queue = await find_queue(parts, arguments.vhost, arguments.queue)
    return await ask_leader(parts, admin, queue, "node pause_queue", PauseDone, is_paused=is_paused)


async def _pause_here(parts: NodeParts, arguments: PauseHereArguments) -> PauseDone:
    is_changed = await act_here(parts, arguments.uid, Pause(is_paused=arguments.is_paused))
    return PauseDone(is_paused=arguments.is_paused, is_changed=is_changed)


async def _cancel(parts: NodeParts, admin: Admin, arguments: CancelDelayedArguments) -> Cancelled:
    queue = await find_queue(parts, arguments.vhost, arguments.queue)
    total = 0
    while True:
        done = await ask_leader(
            parts,
            admin,
            queue,
            "node cancel_delayed",
            Cancelled,
            sequence=arguments.sequence,
        )
        total += done.messages
        if done.messages < CANCEL_MAX:
            break
    if arguments.sequence is not None and total == 0:
        raise ControlError(
            "not_found",
            f'message {arguments.sequence} of queue "{queue.name}" is not delayed (any more)',
            remedy="see `leveret ctl list_delayed`",
        )
    return Cancelled(messages=total)


async def _cancel_here(parts: NodeParts, arguments: CancelHereArguments) -> Cancelled:
    try:
        count = await act_here(parts, arguments.uid, CancelDelayed(arguments.sequence))
    except Busy:
        raise busy() from None
    return Cancelled(messages=count)


def busy() -> ControlError:
    """Return the error about a queue with which something else is done."""
    return ControlError(
        "unavailable",
        "messages of the queue are being moved or cancelled for somebody else",
        remedy="try again when that is done",
    )
