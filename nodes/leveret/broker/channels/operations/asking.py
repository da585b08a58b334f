"""Asking the catalog and queues' leaders for a channel, and what its client hears if none answers.

What a client may take as fresh is answered after a command or a barrier of the catalog's log, so
never by a node that is cut off; and what it was told of, it may use through any other node at once.
Only what concerns messages alone (publish, get) trusts what this
node knows: there the queue's own log decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar, cast

import trio

from leveret.actors import ActorStopped
from leveret.amqp import errors
from leveret.broker.messages import (
    QueueGone,
    QueueRequest,
)
from leveret.broker.news import EVENT_EXCHANGE, EVENT_VHOST
from leveret.catalog.catalog import CatalogTimeout, ChangeRefused
from leveret.catalog.commands import (
    Command,
    DeclareExchange,
    DeclareQueue,
    Done,
    Refusal,
)
from leveret.catalog.model import EMPTY_TABLE, Entity, Queue

from .naming import is_mine

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.actors import Ref
    from leveret.broker.channels.channel import Channel


_Found = TypeVar("_Found")
_Answer = TypeVar("_Answer")
_Changed = TypeVar("_Changed", bound=Entity)

WITHIN_S: Final = 30.0
"""How long an operation waits for a majority or a leader before the client hears of it."""


def error_of_refusal(refusal: Refusal) -> errors.AmqpError:
    """Return what a client hears of a refusal of the catalog that its operation did not expect."""
    match refusal.kind, refusal.subject:
        case _, "node":
            return errors.connection_forced("this node is not a member of the cluster any more")
        case "limit", "queue":
            return errors.precondition_failed(
                f"cannot declare queue '{refusal.name}': queue limit in vhost '{refusal.vhost}' "
                f"({refusal.limit}) is reached"
            )
        case _, "vhost":
            return errors.connection_forced(f"vhost '{refusal.name}' is deleted")
        case "malformed", _:
            return errors.precondition_failed(f"invalid declaration: {refusal.name}")
    return errors.internal_error()


async def make_event_exchange(channel: Channel, name: str) -> None:
    """Make the event exchange if that is what the client names, and it is not there yet.

    It comes with its first use, so that clusters that do not use it are as they were.
    """
    connection = channel.connection
    if (
        name == EVENT_EXCHANGE
        and connection.vhost == EVENT_VHOST
        and connection.services.catalog.model.exchange(EVENT_VHOST, EVENT_EXCHANGE) is None
    ):
        command = DeclareExchange(
            EVENT_VHOST, EVENT_EXCHANGE, "topic", True, False, True, EMPTY_TABLE
        )
        await change(channel, command)


async def find(
    channel: Channel, look_up: Callable[[], _Found | None], error: errors.AmqpError
) -> _Found:
    """Return what `look_up` finds in a catalog that is up to date, or raise `error`."""
    await catch_up(channel)
    found = look_up()
    if found is None:
        raise error
    return found


async def still_there(channel: Channel, look_up: Callable[[], _Found | None]) -> _Found | None:
    """Return what a declaration finds there already; for what is missing, its command decides."""
    if look_up() is None:
        return None
    await catch_up(channel)
    await channel.connection.services.catalog.known_everywhere()
    return look_up()


async def catch_up(channel: Channel) -> None:
    """Wait until this node's catalog holds all that any node has answered for.

    Raises:
        AmqpError: 506, no majority confirms it.
    """
    try:
        await channel.connection.services.catalog.barrier(WITHIN_S)
    except CatalogTimeout:
        raise no_majority() from None


async def change(channel: Channel, command: Command[_Changed]) -> Done[_Changed]:
    """Have the catalog agree on `command`, and the nodes know of it.

    Raises:
        ChangeRefused: as it stands, the catalog can't.
        AmqpError: 506, no majority confirms it.
    """
    catalog = channel.connection.services.catalog
    try:
        done = await catalog.change(command, WITHIN_S)
    except CatalogTimeout:
        raise no_majority() from None
    await catalog.known_everywhere()
    return done


async def declare(channel: Channel, command: DeclareQueue) -> Done[Queue]:
    """Declare a queue; one that is exclusive is owned even if nobody waits for it any more."""
    answers: list[Done[Queue] | Refusal] = []
    answered = trio.Event()

    def done(answer: Done[Queue] | Refusal) -> None:
        # It may answer `exists` for what this very command made, when that was said twice.
        if isinstance(answer, Done) and command.exclusive:
            queue = cast("Queue", answer.entity)
            if queue.exclusive and is_mine(channel, queue):
                channel.connection.own(queue)
        answers.append(answer)
        answered.set()

    catalog = channel.connection.services.catalog
    catalog.submit(command, done)
    with trio.move_on_after(WITHIN_S):
        await answered.wait()
    if not answers:
        raise no_majority()
    if isinstance(answers[0], Refusal):
        raise ChangeRefused(answers[0])
    await catalog.known_everywhere()
    return answers[0]


async def ask_queue(channel: Channel, queue: Queue, request: QueueRequest[_Answer]) -> _Answer:
    """Ask the queue's leader.

    Raises:
        AmqpError: 404, there is no leader to answer.
        QueueGone: it is deleted, or the channel is closed.
    """
    await channel.publishing.all_taken()
    ref = channel.connection.services.directory.queue(queue.uid)
    if ref is None or channel.is_closed:
        raise QueueGone
    try:
        return await cast("Ref[QueueRequest[_Answer]]", ref).ask(request, within_s=WITHIN_S)
    except ActorStopped:
        raise QueueGone from None
    except trio.TooSlowError:
        raise errors.not_found(
            f"queue '{queue.name}' in vhost '{queue.vhost}' has no leader: "
            "its node, or a majority of the nodes, is down or not reachable"
        ) from None
    finally:
        request.is_withdrawn = True


async def ask(channel: Channel, queue: Queue, request: QueueRequest[_Answer]) -> _Answer | None:
    """Ask the queue's leader; None if the queue is deleted."""
    try:
        return await ask_queue(channel, queue, request)
    except QueueGone:
        return None


def no_majority() -> errors.AmqpError:
    """Return what a client hears when it waited too long for the catalog."""
    return errors.resource_error("no majority of the cluster's nodes is reachable")
