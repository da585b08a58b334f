"""What an operator has a queue's leader do: pause it, cancel delayed messages, move messages."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, Literal

import msgspec
import trio

from leveret.broker.queues.moving import MOVE_MAX, DestinationGone, Interrupted, Move
from leveret.broker.queues.operating import CANCEL_MAX, Busy, CancelDelayed, Pause
from leveret.node.plain_tables import plain_arguments

from .controls import Arguments, ControlError, Controls
from .queue_leaders import QueueArguments, act_here, ask_leader, find_queue

if TYPE_CHECKING:
    from .admin import Admin
    from .parts import NodeParts


MOVE_FOR_S: Final = 4.0
"""One request moves messages for so long; the next one goes on."""


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


class MoveArguments(Arguments, frozen=True):
    """From which queue to which, and how many messages at most."""

    vhost: str
    source: str
    destination: str
    count: int


class MoveHereArguments(Arguments, frozen=True):
    """The same, of a queue that the asked node leads."""

    uid: int
    destination: int
    count: int


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """How many messages went, and why no more.

    done: as many as were asked for; empty: no others were ready; full: the destination took no
    more; more: there was no more time.
    """

    messages: int
    end: Literal["done", "empty", "full", "more"]


def add_action_verbs(controls: Controls, parts: NodeParts, admin: Admin) -> None:
    """Put the verbs into the table."""
    controls.add("pause_queue", QueueArguments, partial(_pause, parts, admin, is_paused=True))
    controls.add("resume_queue", QueueArguments, partial(_pause, parts, admin, is_paused=False))
    controls.add("cancel_delayed", CancelDelayedArguments, partial(_cancel, parts, admin))
    controls.add("move_messages", MoveArguments, partial(_move, parts, admin))
    controls.add("node move_messages", MoveHereArguments, partial(_move_here, parts))
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


async def _move(parts: NodeParts, admin: Admin, arguments: MoveArguments) -> Moved:
    source = await find_queue(parts, arguments.vhost, arguments.source)
    destination = await find_queue(parts, arguments.vhost, arguments.destination)
    if source.uid == destination.uid:
        raise ControlError("refused", "source and destination are the same queue")
    for queue in (source, destination):
        if plain_arguments(queue.arguments).get("x-queue-type") == "stream":
            raise ControlError(
                "refused",
                f'queue "{queue.name}" is a stream, which keeps what it has',
                remedy="consume from it, and publish to another queue",
            )
    total = 0
    deadline_s = trio.current_time() + MOVE_FOR_S
    while total < arguments.count:
        if trio.current_time() >= deadline_s:
            return Moved(messages=total, end="more")
        try:
            told = await ask_leader(
                parts,
                admin,
                source,
                "node move_messages",
                Moved,
                destination=destination.uid,
                count=min(arguments.count - total, MOVE_MAX),
            )
        except ControlError as error:
            if total == 0:
                raise
            raise ControlError(
                error.kind, f"{total} messages are moved; {error.text}", remedy=error.remedy
            ) from None
        total += told.messages
        if told.end != "done":
            return Moved(messages=total, end=told.end)
    return Moved(messages=total, end="done")


async def _move_here(parts: NodeParts, arguments: MoveHereArguments) -> Moved:
    try:
        moved = await act_here(parts, arguments.uid, Move(arguments.destination, arguments.count))
    except Busy:
        raise busy() from None
    except DestinationGone:
        raise ControlError("not_found", "the destination is deleted") from None
    except Interrupted:
        raise ControlError(
            "unavailable",
            f"the queue's leader changed; the next {arguments.count} messages are moved, or stay",
            remedy="see `leveret ctl list_queues`, then go on",
        ) from None
    if moved.is_full:
        return Moved(messages=moved.messages, end="full")
    return Moved(messages=moved.messages, end="done" if moved.messages else "empty")


def busy() -> ControlError:
    """Return the error about a queue with which something else is done."""
    return ControlError(
        "unavailable",
        "messages of the queue are being moved or cancelled for somebody else",
        remedy="try again when that is done",
    )
