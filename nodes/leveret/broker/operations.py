"""The methods that wait: for the catalog to agree, or for a queue's leader to answer.

Each is a coroutine beside the connection's actor that returns the reply, or raises what closes
the channel or connection.  The channel takes no other method until it is done.

What a client may take as fresh is answered after a command or a barrier of the catalog's log, so
never by a node that is cut off.  Only what concerns messages alone (publish, get) trusts what this
node knows: there the queue's own log decides.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING, Final, TypeVar, cast

import trio

from leveret.actors import ActorStopped
from leveret.amqp import errors, spec
from leveret.amqp.delivery import DeliverEncoder
from leveret.amqp.fields import encode_table
from leveret.catalog.catalog import CatalogTimeout, ChangeRefused
from leveret.catalog.commands import (
    Bind,
    Command,
    DeclareExchange,
    DeclareQueue,
    DeleteExchange,
    DeleteQueue,
    Done,
    Refusal,
    Unbind,
)
from leveret.catalog.model import Binding, Entity, Exchange, Queue

from . import arguments
from .channel_entries import ConsumerEntry
from .messages import (
    Adjust,
    Attach,
    Cancel,
    Count,
    Detach,
    ExclusiveUse,
    Get,
    GiveBack,
    LocalConsumer,
    Purge,
    QueueGone,
    QueueRequest,
    Reject,
    Settle,
)
from .routing.headers import check_arguments as check_header_arguments

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from leveret.actors import Ref
    from leveret.amqp.fields import Value
    from leveret.amqp.method import Method

    from .access import ResourceKind, Right
    from .channel import Channel

ToQueue = Adjust | Attach | Detach | Settle | Reject | GiveBack

WITHIN_S: Final = 30.0
"""How long an operation waits for a majority or a leader before the client hears of it."""

_RESERVED: Final = "amq."


def of(method: Method) -> Callable[[Channel, Method], Awaitable[Method | None]] | None:
    """Return the operation that carries out `method`, or None if there is none."""
    return cast(
        "Callable[[Channel, Method], Awaitable[Method | None]] | None",
        _OPERATIONS.get(type(method)),
    )


def error_of_refusal(refusal: Refusal) -> errors.AmqpError:
    """Return what a client hears of a refusal of the catalog that its operation did not expect."""
    match refusal.kind, refusal.subject:
        case _, "node":
            return errors.connection_forced("this node is not a member of the cluster any more")
        case _, "vhost":
            return errors.connection_forced(f"vhost '{refusal.name}' is deleted")
        case "malformed", _:
            return errors.precondition_failed(f"invalid declaration: {refusal.name}")
    return errors.internal_error()


# Exchanges


def no_exchange(channel: Channel, name: str) -> errors.AmqpError:
    """Return what a client hears that names an exchange which is not there."""
    return errors.not_found(f"no exchange '{name}' in vhost '{channel.connection.vhost}'")


async def find_exchange(channel: Channel, name: str) -> None:
    """Wait until this node's catalog is up to date, and refuse a publish to no exchange.

    Raises:
        AmqpError: 404, there is no such exchange; 403, the user may not publish to it.
    """
    await _find(channel, lambda: _exchange(channel, name), no_exchange(channel, name))


async def _declare_exchange(channel: Channel, method: spec.ExchangeDeclare) -> Method | None:
    connection = channel.connection
    vhost, name = connection.vhost, method.exchange
    if method.passive:
        await _find(channel, lambda: _exchange(channel, name), no_exchange(channel, name))
        return None if method.nowait else spec.ExchangeDeclareOk()
    arguments.check_exchange(method.type, method.arguments)
    _check_not_default(name)
    _check(channel, "exchange", name, "configure")
    alternate = method.arguments.get("alternate-exchange")
    if isinstance(alternate, str):
        _check(channel, "exchange", name, "read")
        _check(channel, "exchange", alternate, "write")
    current = await _still_there(channel, lambda: _exchange(channel, name))
    if current is None:
        if name.startswith(_RESERVED):
            raise errors.access_refused(f"exchange name '{name}' contains reserved prefix 'amq.*'")
        done = await _change(
            channel,
            DeclareExchange(
                vhost,
                name,
                method.type,
                method.durable,
                method.auto_delete,
                method.internal,
                encode_table(method.arguments),
            ),
        )
        current = cast("Exchange", done.entity)
    arguments.check_same(
        "exchange",
        name,
        vhost,
        wanted={
            "type": method.type,
            "durable": method.durable,
            "auto_delete": method.auto_delete,
            "internal": method.internal,
        },
        current={
            "type": current.type,
            "durable": current.durable,
            "auto_delete": current.auto_delete,
            "internal": current.internal,
        },
    )
    arguments.check_same_arguments(
        "exchange",
        name,
        vhost,
        wanted=method.arguments,
        current=arguments.decode_arguments(current.arguments),
        keys=("alternate-exchange",),
    )
    return None if method.nowait else spec.ExchangeDeclareOk()


async def _delete_exchange(channel: Channel, method: spec.ExchangeDelete) -> Method | None:
    vhost, name = channel.connection.vhost, method.exchange
    _check_not_default(name)
    _check(channel, "exchange", name, "configure")
    if name.startswith(_RESERVED):
        raise errors.access_refused(
            f"deletion of system exchange '{name}' in vhost '{vhost}' not allowed"
        )
    try:
        await _change(channel, DeleteExchange(vhost, name, method.if_unused))
    except ChangeRefused as error:
        if error.refusal.kind == "in_use":
            raise errors.precondition_failed(
                f"exchange '{name}' in vhost '{vhost}' in use"
            ) from None
        if error.refusal.kind != "not_found":
            raise
    return None if method.nowait else spec.ExchangeDeleteOk()


async def _bind_exchange(
    channel: Channel, method: spec.ExchangeBind | spec.ExchangeUnbind
) -> Method | None:
    binds = isinstance(method, spec.ExchangeBind)
    _check_not_default(method.source)
    _check_not_default(method.destination)
    _check(channel, "exchange", method.destination, "write")
    _check(channel, "exchange", method.source, "read")
    await _bind(
        channel,
        binds=binds,
        source=method.source,
        kind="exchange",
        destination=method.destination,
        routing_key=method.routing_key,
        table=method.arguments,
    )
    if method.nowait:
        return None
    return spec.ExchangeBindOk() if binds else spec.ExchangeUnbindOk()


async def _bind_queue(channel: Channel, method: spec.QueueBind | spec.QueueUnbind) -> Method | None:
    name = _queue_name(channel, method.queue)
    routing_key = method.routing_key
    if not method.queue and not routing_key:
        routing_key = name  # "the server uses the name of the current queue for both"
    _check_not_default(method.exchange)
    _check(channel, "queue", name, "write")
    _check(channel, "exchange", method.exchange, "read")
    queue = _queue(channel, name)
    if queue is None or (queue.exclusive and not _is_mine(channel, queue)):
        await _catch_up(channel)
        queue = _queue(channel, name)
    if queue is not None:
        _check_owner(channel, queue)
    await _bind(
        channel,
        binds=isinstance(method, spec.QueueBind),
        source=method.exchange,
        kind="queue",
        destination=name,
        routing_key=routing_key,
        table=method.arguments,
    )
    if isinstance(method, spec.QueueUnbind):
        return spec.QueueUnbindOk()
    return None if method.nowait else spec.QueueBindOk()


async def _bind(
    channel: Channel,
    *,
    binds: bool,
    source: str,
    kind: str,
    destination: str,
    routing_key: str,
    table: Mapping[str, Value],
) -> None:
    vhost = channel.connection.vhost
    binding = Binding(
        vhost,
        source,
        "queue" if kind == "queue" else "exchange",
        destination,
        routing_key,
        encode_table(dict(sorted(table.items()))),
    )
    model = channel.connection.services.catalog.model
    exchange = model.exchange(vhost, source)
    if binds and (exchange is None or model.has_binding(binding)):
        await _catch_up(channel)
        exchange = model.exchange(vhost, source)
    if binds and exchange is not None and exchange.type == "headers":
        try:
            check_header_arguments(table)
        except ValueError as error:
            raise errors.precondition_failed(str(error)) from None
    if binds and model.has_binding(binding):
        return
    command = (Bind if binds else Unbind)(
        binding.vhost,
        binding.source,
        binding.kind,
        binding.destination,
        binding.routing_key,
        binding.arguments,
    )
    try:
        await _change(channel, command)
    except ChangeRefused as error:
        if error.refusal.kind != "not_found":
            raise
        if binds or error.refusal.subject == "exchange" or kind == "queue":
            raise errors.not_found(
                f"no {error.refusal.subject} '{error.refusal.name}' in vhost '{vhost}'"
            ) from None


# Queues


async def _declare_queue(channel: Channel, method: spec.QueueDeclare) -> Method | None:
    connection = channel.connection
    vhost, name = connection.vhost, method.queue
    if method.passive:
        queue = await _find(channel, lambda: _queue(channel, name), no_queue(channel, name))
    else:
        queue = await _make_queue(channel, method)
    _check_owner(channel, queue)
    channel.last_queue = queue.name
    if method.nowait:
        return None
    counts = await _ask(channel, queue, Count())
    if counts is None:
        raise errors.not_found(f"no queue '{queue.name}' in vhost '{vhost}'")
    return spec.QueueDeclareOk(
        queue=queue.name, message_count=counts.ready, consumer_count=counts.consumers
    )


async def _make_queue(channel: Channel, method: spec.QueueDeclare) -> Queue:
    connection = channel.connection
    vhost, name, table = connection.vhost, method.queue, method.arguments
    if name.startswith(_RESERVED):
        raise errors.access_refused(f"queue name '{name}' contains reserved prefix 'amq.*'")
    current = await _still_there(channel, lambda: _queue(channel, name))
    if current is None:
        arguments.check_queue(
            table,
            name=name,
            vhost=vhost,
            durable=method.durable,
            exclusive=method.exclusive,
        )
        if not name:
            name = f"amq.gen-{_unique(connection.services.random_bytes(16))}"
        _check(channel, "queue", name, "configure")
        dead_letters = table.get("x-dead-letter-exchange")
        if isinstance(dead_letters, str):
            _check(channel, "queue", name, "read")
            _check(channel, "exchange", dead_letters, "write")
        done = await _declare(
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
            return current
    else:
        _check(channel, "queue", name, "configure")
    _check_owner(channel, current, exclusive=method.exclusive)
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
    return current


async def _delete_queue(channel: Channel, method: spec.QueueDelete) -> Method | None:
    connection = channel.connection
    vhost, name = connection.vhost, _queue_name(channel, method.queue)
    _check(channel, "queue", name, "configure")
    await _catch_up(channel)
    queue = _queue(channel, name)
    count = 0
    if queue is not None:
        _check_owner(channel, queue)
        counts = await _ask(channel, queue, Count())
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
        await _change(channel, DeleteQueue(queue.vhost, queue.name, queue.uid))
    except ChangeRefused as error:
        if error.refusal.kind not in {"not_found", "stale"}:
            raise
    channel.connection.exclusive_queues.pop(queue.uid, None)


async def _purge_queue(channel: Channel, method: spec.QueuePurge) -> Method | None:
    name = _queue_name(channel, method.queue)
    _check(channel, "queue", name, "read")
    queue = await _find(channel, lambda: _queue(channel, name), no_queue(channel, name))
    _check_owner(channel, queue)
    count = await _ask(channel, queue, Purge())
    if count is None:
        raise no_queue(channel, name)
    return None if method.nowait else spec.QueuePurgeOk(message_count=count)


# Consumers


async def _consume(channel: Channel, method: spec.BasicConsume) -> Method | None:
    connection = channel.connection
    name = _queue_name(channel, method.queue)
    _check(channel, "queue", name, "read")
    tag = method.consumer_tag
    if tag in channel.consumers:
        raise errors.not_allowed(f"attempt to reuse consumer tag '{tag}'")
    queue = await _find(channel, lambda: _queue(channel, name), no_queue(channel, name))
    _check_owner(channel, queue)
    if not tag:
        tag = make_consumer_tag(channel)
    priority = method.arguments.get("x-priority", 0)
    if isinstance(priority, bool) or not isinstance(priority, int):
        raise errors.precondition_failed(
            f"invalid arg 'x-priority' for queue '{name}' in vhost '{connection.vhost}': "
            f'"expected integer, got {arguments.wire_type(priority)}"'
        )
    consumer = LocalConsumer(
        number=connection.services.directory.next_consumer_number(),
        connection=connection.ref,
        channel=channel.number,
        tag=tag,
        no_ack=method.no_ack,
        exclusive=method.exclusive,
        prefetch=channel.prefetch_of(channel.prefetch),
        priority=int(priority),
    )
    entry = ConsumerEntry(
        queue.uid, consumer, DeliverEncoder(channel.number, tag), channel.prefetch
    )
    channel.consumers[tag] = entry
    try:
        await _ask_queue(channel, queue, Attach(consumer))
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


async def _cancel(channel: Channel, method: spec.BasicCancel) -> Method | None:
    entry = channel.consumers.get(method.consumer_tag)
    if entry is not None:
        queue = channel.connection.services.catalog.model.queue_by_uid(entry.uid)
        if queue is not None:
            await _ask(channel, queue, Cancel(entry.consumer))
    if method.nowait:
        channel.forget_consumer(method.consumer_tag)
        return None
    return spec.BasicCancelOk(consumer_tag=method.consumer_tag)


async def _get(channel: Channel, method: spec.BasicGet) -> Method | None:
    name = _queue_name(channel, method.queue)
    _check(channel, "queue", name, "read")
    queue = _queue(channel, name)
    if queue is None:
        queue = await _find(channel, lambda: _queue(channel, name), no_queue(channel, name))
    _check_owner(channel, queue)
    entry = channel.holder(queue.uid, no_ack=method.no_ack)
    got = await _ask(channel, queue, Get(entry.consumer))
    if got is None:
        return spec.BasicGetEmpty()
    if not channel.is_closed:  # else the message is on its way back
        channel.write_got(entry, got)
    return None


# Transactions


async def _commit(channel: Channel, _method: spec.TxCommit) -> Method | None:
    """Publish and then settle what the channel's transaction holds.

    Nothing is settled before all publishes are stored, so whoever passes messages on in
    transactions loses none: if a publish is refused, what it came from is delivered again.
    """
    channel.commit_publishes()
    await channel.all_taken()
    if not channel.is_closed:
        channel.commit_settlements()
    return spec.TxCommitOk()


# Helpers


_Found = TypeVar("_Found")
_Answer = TypeVar("_Answer")
_Changed = TypeVar("_Changed", bound=Entity)


async def _find(
    channel: Channel, look_up: Callable[[], _Found | None], error: errors.AmqpError
) -> _Found:
    """Return what `look_up` finds in a catalog that is up to date, or raise `error`."""
    await _catch_up(channel)
    found = look_up()
    if found is None:
        raise error
    return found


async def _still_there(channel: Channel, look_up: Callable[[], _Found | None]) -> _Found | None:
    """Return what a declaration finds there already; for what is missing, its command decides."""
    if look_up() is None:
        return None
    await _catch_up(channel)
    return look_up()


async def _catch_up(channel: Channel) -> None:
    """Wait until this node's catalog holds all that any node has answered for.

    Raises:
        AmqpError: 506, no majority confirms it.
    """
    try:
        await channel.connection.services.catalog.barrier(WITHIN_S)
    except CatalogTimeout:
        raise _no_majority() from None


async def _change(channel: Channel, command: Command[_Changed]) -> Done[_Changed]:
    try:
        return await channel.connection.services.catalog.change(command, WITHIN_S)
    except CatalogTimeout:
        raise _no_majority() from None


async def _declare(channel: Channel, command: DeclareQueue) -> Done[Queue]:
    """Declare a queue; one that is exclusive is owned even if nobody waits for it any more."""
    answers: list[Done[Queue] | Refusal] = []
    answered = trio.Event()

    def done(answer: Done[Queue] | Refusal) -> None:
        # It may answer `exists` for what this very command made, when that was said twice.
        if isinstance(answer, Done) and command.exclusive:
            queue = cast("Queue", answer.entity)
            if queue.exclusive and _is_mine(channel, queue):
                channel.connection.own(queue)
        answers.append(answer)
        answered.set()

    channel.connection.services.catalog.submit(command, done)
    with trio.move_on_after(WITHIN_S):
        await answered.wait()
    if not answers:
        raise _no_majority()
    if isinstance(answers[0], Refusal):
        raise ChangeRefused(answers[0])
    return answers[0]


async def _ask_queue(channel: Channel, queue: Queue, request: QueueRequest[_Answer]) -> _Answer:
    """Ask the queue's leader.

    Raises:
        AmqpError: 404, there is no leader to answer.
        QueueGone: it is deleted, or the channel is closed.
    """
    await channel.all_taken()
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


async def _ask(channel: Channel, queue: Queue, request: QueueRequest[_Answer]) -> _Answer | None:
    """Ask the queue's leader; None if the queue is deleted."""
    try:
        return await _ask_queue(channel, queue, request)
    except QueueGone:
        return None


def _exchange(channel: Channel, name: str) -> Exchange | None:
    connection = channel.connection
    return connection.services.catalog.model.exchange(connection.vhost, name)


def _queue(channel: Channel, name: str) -> Queue | None:
    connection = channel.connection
    return connection.services.catalog.model.queue(connection.vhost, name)


def _queue_name(channel: Channel, name: str) -> str:
    """Return what the client means: an empty name is the queue that the channel declared last."""
    if name:
        return name
    if not channel.last_queue:
        raise errors.not_found("no previously declared queue")
    return channel.last_queue


def _check(channel: Channel, kind: ResourceKind, name: str, right: Right) -> None:
    channel.connection.check(kind, name, right)


def _check_not_default(name: str) -> None:
    if not name:
        raise errors.access_refused("operation not permitted on the default exchange")


def _check_owner(channel: Channel, queue: Queue, *, exclusive: bool | None = None) -> None:
    """Refuse a queue that another connection has for itself.

    exclusive: what a declaration says of it; None if the method declares nothing.
    """
    if (queue.exclusive and not _is_mine(channel, queue)) or (
        exclusive is not None and exclusive != queue.exclusive
    ):
        raise errors.resource_locked(
            f"cannot obtain exclusive access to locked queue '{queue.name}' "
            f"in vhost '{queue.vhost}'. It could be originally declared on another connection "
            "or the exclusive property value does not match that of the original declaration."
        )


def _is_mine(channel: Channel, queue: Queue) -> bool:
    """Whether the channel's connection declared the exclusive `queue`."""
    directory, number = channel.connection.services.directory, channel.connection.number
    return (queue.home, queue.boot, queue.owner) == (directory.node, directory.boot, number)


def no_queue(channel: Channel, name: str) -> errors.AmqpError:
    """Return what a client hears that names a queue which is not there."""
    return errors.not_found(f"no queue '{name}' in vhost '{channel.connection.vhost}'")


def _no_majority() -> errors.AmqpError:
    return errors.resource_error("no majority of the cluster's nodes is reachable")


def make_consumer_tag(channel: Channel) -> str:
    """Return a tag for a consumer whose client gave it none."""
    return f"amq.ctag-{_unique(channel.connection.services.random_bytes(16))}"


def _unique(octets: bytes) -> str:
    return urlsafe_b64encode(octets).decode().rstrip("=")


_OPERATIONS: Final = {
    spec.ExchangeDeclare: _declare_exchange,
    spec.ExchangeDelete: _delete_exchange,
    spec.ExchangeBind: _bind_exchange,
    spec.ExchangeUnbind: _bind_exchange,
    spec.QueueDeclare: _declare_queue,
    spec.QueueBind: _bind_queue,
    spec.QueueUnbind: _bind_queue,
    spec.QueueDelete: _delete_queue,
    spec.QueuePurge: _purge_queue,
    spec.BasicConsume: _consume,
    spec.BasicCancel: _cancel,
    spec.BasicGet: _get,
    spec.TxCommit: _commit,
}
