"""What methods mean that name the pseudo-queue of direct reply-to, or a requester's name.

They ask no catalog and check no permission: who has the name was asked.  All other methods find
no such queue.  Codes and texts are RabbitMQ's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import trio

from leveret.amqp import errors, spec
from leveret.broker.replies import REPLY_QUEUE

from .asking import WITHIN_S
from .naming import make_consumer_tag, no_queue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from leveret.amqp.method import Method
    from leveret.broker.channels.channel import Channel


def operation_of(
    channel: Channel, method: Method
) -> Callable[[Channel, Method], Awaitable[Method | None]] | None:
    """Return the operation that carries out `method`, or None if it is about anything else."""
    operation: object
    match method:
        case spec.BasicConsume() if (method.queue or channel.last_queue) == REPLY_QUEUE:
            operation = _consume
        case spec.BasicCancel() if (
            channel.replies is not None and method.consumer_tag == channel.replies.tag
        ):
            operation = _cancel
        case spec.QueueDeclare() if method.queue.startswith(REPLY_QUEUE):
            operation = _declare
        case _:
            operation = None
    return cast("Callable[[Channel, Method], Awaitable[Method | None]] | None", operation)


async def _consume(channel: Channel, method: spec.BasicConsume) -> None:
    tag = method.consumer_tag
    if tag in channel.consumers:
        raise errors.not_allowed(f"attempt to reuse consumer tag '{tag}'")
    if not method.no_ack:
        raise errors.precondition_failed("reply consumer cannot acknowledge")
    if channel.replies is not None:
        raise errors.precondition_failed("reply consumer already set")
    if channel.is_closed:
        return
    connection = channel.connection
    channel.replies = connection.services.directory.replies.add(
        connection.ref,
        channel.number,
        tag=tag or make_consumer_tag(channel),
        vhost=connection.vhost,
        secret=connection.services.random_bytes(16),
    )
    if not method.nowait:
        channel.write(spec.BasicConsumeOk(consumer_tag=channel.replies.tag))


async def _cancel(channel: Channel, method: spec.BasicCancel) -> Method | None:
    channel.forget_replies()
    return None if method.nowait else spec.BasicCancelOk(consumer_tag=method.consumer_tag)


async def _declare(channel: Channel, method: spec.QueueDeclare) -> Method | None:
    """Answer as for a queue that is there and has its one consumer; nothing is ever declared."""
    name = method.queue
    if name != REPLY_QUEUE and not await _is_there(channel, name):
        raise no_queue(channel, name)
    channel.last_queue = name
    if method.nowait:
        return None
    return spec.QueueDeclareOk(queue=name, message_count=0, consumer_count=1)


async def _is_there(channel: Channel, name: str) -> bool:
    """Say whether `name` leads to a requester, on whatever node."""
    answers: list[bool] = []
    answered = trio.Event()

    def done(is_there: bool) -> None:  # noqa: FBT001 - the answer itself
        answers.append(is_there)
        answered.set()

    connection = channel.connection
    connection.services.directory.replies.look_up(connection.vhost, name, done)
    with trio.move_on_after(WITHIN_S):
        await answered.wait()
    return answers == [True]
