"""Binding queues and exchanges to exchanges."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leveret.amqp import errors, spec
from leveret.amqp.fields import encode_table
from leveret.broker.arguments import decode_arguments
from leveret.broker.routing.binding_checks import check_binding
from leveret.catalog.catalog import ChangeRefused
from leveret.catalog.commands import (
    Bind,
    Unbind,
)
from leveret.catalog.model import Binding

from .asking import catch_up, change, make_event_exchange
from .naming import (
    check,
    check_not_default,
    check_owner,
    is_mine,
    queue_name,
    queue_named,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from leveret.amqp.fields import Value
    from leveret.amqp.method import Method
    from leveret.broker.channels.channel import Channel


async def bind_exchange(
    channel: Channel, method: spec.ExchangeBind | spec.ExchangeUnbind
) -> Method | None:
    """exchange.bind and exchange.unbind."""
    binds = isinstance(method, spec.ExchangeBind)
    check_not_default(method.source)
    check_not_default(method.destination)
    check(channel, "exchange", method.destination, "write")
    check(channel, "exchange", method.source, "read")
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


async def bind_queue(channel: Channel, method: spec.QueueBind | spec.QueueUnbind) -> Method | None:
    """queue.bind and queue.unbind."""
    name = queue_name(channel, method.queue)
    routing_key = method.routing_key
    if not method.queue and not routing_key:
        routing_key = name  # "the server uses the name of the current queue for both"
    check_not_default(method.exchange)
    check(channel, "queue", name, "write")
    check(channel, "exchange", method.exchange, "read")
    queue = queue_named(channel, name)
    if queue is None or (queue.exclusive and not is_mine(channel, queue)):
        await catch_up(channel)
        queue = queue_named(channel, name)
    if queue is not None:
        check_owner(channel, queue)
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
    if binds:
        await make_event_exchange(channel, source)
    model = channel.connection.services.catalog.model
    exchange = model.exchange(vhost, source)
    if exchange is None or (binds and model.has_binding(binding)):
        await catch_up(channel)
        exchange = model.exchange(vhost, source)
    if exchange is not None:
        channel.connection.check_topic(exchange, routing_key, "read")
    if binds and exchange is not None:
        check_binding(exchange.type, decode_arguments(exchange.arguments), routing_key, table)
    if binds and model.has_binding(binding):
        await channel.connection.services.catalog.known_everywhere()
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
        await change(channel, command)
    except ChangeRefused as error:
        if error.refusal.kind != "not_found":
            raise
        if binds or error.refusal.subject == "exchange" or kind == "queue":
            raise errors.not_found(
                f"no {error.refusal.subject} '{error.refusal.name}' in vhost '{vhost}'"
            ) from None
