"""Declaring, deleting and purging queues."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from leveret.amqp import errors, spec
from leveret.amqp.fields import encode_table
from leveret.broker import arguments, stream_arguments
from leveret.broker.messages import (
    Count,
    Purge,
)
from leveret.catalog.catalog import ChangeRefused
from leveret.catalog.commands import (
    DeclareQueue,
    DeleteQueue,
)
from leveret.catalog.model import Queue

from .asking import ask, catch_up, change, declare, find, still_there
from .naming import (
    RESERVED,
    check,
    check_owner,
    no_queue,
    queue_name,
    queue_named,
    unique,
)

if TYPE_CHECKING:
    from leveret.amqp.method import Method
    from leveret.broker.channels.channel import Channel

MADE_ANEW_MAX = 3
"""How often a declaration makes its queue before it says that there is none: others delete it."""


async def declare_queue(channel: Channel, method: spec.QueueDeclare) -> Method | None:
    """queue.declare."""
    name = method.queue
    for _ in range(MADE_ANEW_MAX):
        is_new = False
        if method.passive:
            queue = await find(channel, lambda: queue_named(channel, name), no_queue(channel, name))
        else:
            queue, is_new = await _make_queue(channel, method)
        check_owner(channel, queue)
        channel.last_queue = queue.name
        if method.nowait:
            return None
        counts = await ask(channel, queue, Count())
        if counts is not None:
            return spec.QueueDeclareOk(
                queue=queue.name, message_count=counts.ready, consumer_count=counts.consumers
            )
        if method.passive or channel.is_closed:
            break
        if is_new:
            # Somebody has deleted it since; made again, it would be there after that was answered.
            return spec.QueueDeclareOk(queue=queue.name, message_count=0, consumer_count=0)
        # It has gone since it was found, most often with the node that was its home: what its
        # client declares again after that loss is to be there, not missing.
    raise no_queue(channel, queue.name)


async def _make_queue(channel: Channel, method: spec.QueueDeclare) -> tuple[Queue, bool]:
    """Return the queue that is declared, and whether it was made for that."""
    connection = channel.connection
    vhost, name = connection.vhost, method.queue
    if name.startswith(RESERVED):
        raise errors.access_refused(f"queue name '{name}' contains reserved prefix 'amq.*'")
    current = await still_there(channel, lambda: queue_named(channel, name))
    known = connection.services.catalog.model.vhost(vhost)
    table = arguments.with_default_type(
        method.arguments,
        "" if known is None else known.default_queue_type,
        durable=method.durable,
        exclusive=method.exclusive,
        auto_delete=method.auto_delete,
        current=None if current is None else arguments.decode_arguments(current.arguments),
    )
    if current is None:
        arguments.check_queue(
            table,
            name=name,
            vhost=vhost,
            durable=method.durable,
            exclusive=method.exclusive,
            auto_delete=method.auto_delete,
        )
        if not name:
            name = f"amq.gen-{unique(connection.services.random_bytes(16))}"
        check(channel, "queue", name, "configure")
        dead_letters = table.get("x-dead-letter-exchange")
        if isinstance(dead_letters, str):
            check(channel, "queue", name, "read")
            check(channel, "exchange", dead_letters, "write")
        done = await declare(
            channel,
            DeclareQueue(
                vhost,
                name,
                method.durable,
                method.exclusive,
                method.auto_delete,
                encode_table(table),
                connection.services.directory.node,
                connection.services.directory.boot,
                connection.number if method.exclusive else 0,
            ),
        )
        current = cast("Queue", done.entity)
        if done.outcome == "created":
            return current, True
    else:
        check(channel, "queue", name, "configure")
    check_owner(channel, current, exclusive=method.exclusive)
    arguments.check_same(
        "queue",
        name,
        vhost,
        wanted={"durable": method.durable, "auto_delete": method.auto_delete},
        current={"durable": current.durable, "auto_delete": current.auto_delete},
    )
    arguments.check_same_arguments(
        "queue", name, vhost, wanted=table, current=arguments.decode_arguments(current.arguments)
    )
    return current, False


async def delete_queue_named(channel: Channel, method: spec.QueueDelete) -> Method | None:
    """queue.delete."""
    connection = channel.connection
    vhost, name = connection.vhost, queue_name(channel, method.queue)
    check(channel, "queue", name, "configure")
    await catch_up(channel)
    queue = queue_named(channel, name)
    count = 0
    if queue is not None:
        check_owner(channel, queue)
        counts = await ask(channel, queue, Count())
        if counts is not None:
            if method.if_unused and counts.consumers:
                raise errors.precondition_failed(f"queue '{name}' in vhost '{vhost}' in use")
            if method.if_empty and counts.ready:
                raise errors.precondition_failed(f"queue '{name}' in vhost '{vhost}' not empty")
            count = counts.ready
        await delete_queue(channel, queue)
    return None if method.nowait else spec.QueueDeleteOk(message_count=count)


async def delete_queue(channel: Channel, queue: Queue) -> None:
    """Delete a queue that may be gone already."""
    try:
        await change(channel, DeleteQueue(queue.vhost, queue.name, queue.uid))
    except ChangeRefused as error:
        if error.refusal.kind not in {"not_found", "stale"}:
            raise
    channel.connection.exclusive_queues.pop(queue.uid, None)


async def purge_queue(channel: Channel, method: spec.QueuePurge) -> Method | None:
    """queue.purge."""
    name = queue_name(channel, method.queue)
    check(channel, "queue", name, "read")
    queue = await find(channel, lambda: queue_named(channel, name), no_queue(channel, name))
    check_owner(channel, queue)
    if stream_arguments.is_stream(queue):
        raise stream_arguments.not_supported("queue.purge", queue)
    count = await ask(channel, queue, Purge())
    if count is None:
        raise no_queue(channel, name)
    return None if method.nowait else spec.QueuePurgeOk(message_count=count)
