"""Consuming and getting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leveret.amqp import errors, spec
from leveret.amqp.delivery import DeliverEncoder
from leveret.broker.arguments import decode_arguments
from leveret.broker.channels.entries import ConsumerEntry
from leveret.broker.messages import (
    Attach,
    Cancel,
    ExclusiveUse,
    Get,
    LocalConsumer,
    QueueGone,
    StreamPosition,
)
from leveret.broker.stream_arguments import (
    OFFSET,
    is_stream,
    not_supported,
    start_of,
    wrong_argument,
)
from leveret.broker.wire_types import wire_type

from .asking import ask, ask_queue, find
from .naming import (
    check,
    check_owner,
    make_consumer_tag,
    no_queue,
    queue_name,
    queue_named,
)

if TYPE_CHECKING:
    from leveret.amqp.method import Method
    from leveret.broker.channels.channel import Channel
    from leveret.broker.messages import Start
    from leveret.catalog.model import Queue


async def consume(channel: Channel, method: spec.BasicConsume) -> Method | None:
    """basic.consume."""
    connection = channel.connection
    name = queue_name(channel, method.queue)
    check(channel, "queue", name, "read")
    tag = method.consumer_tag
    if tag in channel.consumers:
        raise errors.not_allowed(f"attempt to reuse consumer tag '{tag}'")
    queue = await find(channel, lambda: queue_named(channel, name), no_queue(channel, name))
    check_owner(channel, queue)
    if not tag:
        tag = make_consumer_tag(channel)
    where = f"for queue '{name}' in vhost '{connection.vhost}'"
    priority = method.arguments.get("x-priority", 0)
    if isinstance(priority, bool) or not isinstance(priority, int):
        raise errors.precondition_failed(
            f"invalid arg 'x-priority' {where}: \"expected integer, got {wire_type(priority)}\""
        )
    stream = None
    prefetch = channel.prefetch_of(channel.prefetch)
    if is_stream(queue):
        stream = StreamPosition(_start_on_stream(channel, queue, method, where=where))
        prefetch = channel.prefetch
    elif OFFSET in method.arguments:
        raise wrong_argument(OFFSET, queue, where=where)
    consumer = LocalConsumer(
        number=connection.services.directory.next_consumer_number(),
        connection=connection.ref,
        channel=channel.number,
        tag=tag,
        no_ack=method.no_ack,
        exclusive=method.exclusive,
        prefetch=prefetch,
        priority=int(priority),
        stream=stream,
    )
    consumer.timeout_ms = _timeout_of(method, where=where)
    consumer.default_timeout_ms = connection.services.consumer_timeout_ms
    entry = ConsumerEntry(
        queue.uid, consumer, DeliverEncoder(channel.number, tag), channel.prefetch
    )
    channel.consumers[tag] = entry
    try:
        await ask_queue(channel, queue, Attach(consumer))
    except ExclusiveUse:
        channel.forget_consumer(tag)
        raise errors.access_refused(
            f"queue '{name}' in vhost '{connection.vhost}' in exclusive use"
        ) from None
    except QueueGone:
        channel.forget_consumer(tag)
        raise no_queue(channel, name) from None
    if method.nowait:
        channel.consumer_ready(tag)
        return None
    return spec.BasicConsumeOk(consumer_tag=tag)


def _start_on_stream(
    channel: Channel, queue: Queue, method: spec.BasicConsume, *, where: str
) -> Start:
    """Return where a consumer of a stream begins.

    Raises:
        AmqpError: 406 or 540, a stream is not consumed like that.
    """
    if "x-priority" in method.arguments:
        raise wrong_argument("x-priority", queue, where=where)
    if not channel.prefetch:
        raise errors.precondition_failed(
            "consumer prefetch count is not set for "
            f"'queue '{queue.name}' in vhost '{queue.vhost}''"
        )
    if method.no_ack:
        raise not_supported("automatic acknowledgement", queue)
    return start_of(method.arguments, where=where)


async def cancel(channel: Channel, method: spec.BasicCancel) -> Method | None:
    """basic.cancel."""
    entry = channel.consumers.get(method.consumer_tag)
    if entry is not None:
        queue = channel.connection.services.catalog.model.queue_by_uid(entry.uid)
        if queue is not None:
            await ask(channel, queue, Cancel(entry.consumer))
    if method.nowait:
        channel.forget_consumer(method.consumer_tag)
        return None
    return spec.BasicCancelOk(consumer_tag=method.consumer_tag)


async def get(channel: Channel, method: spec.BasicGet) -> Method | None:
    """basic.get."""
    name = queue_name(channel, method.queue)
    check(channel, "queue", name, "read")
    queue = queue_named(channel, name)
    if queue is None:
        queue = await find(channel, lambda: queue_named(channel, name), no_queue(channel, name))
    check_owner(channel, queue)
    if is_stream(queue):
        raise not_supported("basic.get", queue)
    if _is_refused(queue.arguments):
        raise errors.resource_locked(
            f"cannot obtain access to locked queue '{name}' in vhost '{channel.connection.vhost}'. "
            "basic.get operations are not supported by quorum queues with single active consumer"
        )
    entry = channel.holder(queue.uid, no_ack=method.no_ack)
    got = await ask(channel, queue, Get(entry.consumer))
    if got is None:
        return spec.BasicGetEmpty()
    if not channel.is_closed:  # else the message is on its way back
        channel.write_got(entry, got)
    return None


def _timeout_of(method: spec.BasicConsume, *, where: str) -> int | None:
    """Return how long the consumer says that it may hold a message (ms); None if it does not.

    Raises:
        AmqpError: 406, it is no such number.
    """
    timeout = method.arguments.get("x-consumer-timeout")
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int):
        raise errors.precondition_failed(
            f"invalid arg 'x-consumer-timeout' {where}: "
            f'"expected integer, got {wire_type(timeout)}"'
        )
    if timeout < 0:
        raise errors.precondition_failed(
            f"invalid arg 'x-consumer-timeout' {where}: {{value_negative,{timeout:d}}}"
        )
    return int(timeout)


def _is_refused(octets: bytes) -> bool:
    """Say whether a queue with these arguments takes no basic.get."""
    if b"x-single-active-consumer" not in octets:
        return False
    declared = decode_arguments(octets)
    return declared.get("x-queue-type") == "quorum" and declared["x-single-active-consumer"] is True
