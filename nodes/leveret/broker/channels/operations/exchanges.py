"""Declaring and deleting exchanges."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from leveret.amqp import errors, spec
from leveret.amqp.fields import encode_table
from leveret.broker import arguments
from leveret.catalog.catalog import ChangeRefused
from leveret.catalog.commands import (
    DeclareExchange,
    DeleteExchange,
)
from leveret.catalog.model import Exchange

from .asking import change, find, make_event_exchange, still_there
from .naming import (
    RESERVED,
    check,
    check_not_default,
    exchange_named,
    no_exchange,
)

if TYPE_CHECKING:
    from leveret.amqp.method import Method
    from leveret.broker.channels.channel import Channel


async def find_exchange(channel: Channel, name: str) -> None:
    """Wait until this node's catalog is up to date, and refuse a publish to no exchange.

    Raises:
        AmqpError: 404, there is no such exchange; 403, the user may not publish to it.
    """
    await find(channel, lambda: exchange_named(channel, name), no_exchange(channel, name))


async def declare_exchange(channel: Channel, method: spec.ExchangeDeclare) -> Method | None:
    """exchange.declare."""
    connection = channel.connection
    vhost, name = connection.vhost, method.exchange
    await make_event_exchange(channel, name)
    if method.passive:
        check_not_default(name)
        await find(channel, lambda: exchange_named(channel, name), no_exchange(channel, name))
        return None if method.nowait else spec.ExchangeDeclareOk()
    arguments.check_exchange(method.type, method.arguments)
    check_not_default(name)
    check(channel, "exchange", name, "configure")
    alternate = method.arguments.get("alternate-exchange")
    if isinstance(alternate, str):
        check(channel, "exchange", name, "read")
        check(channel, "exchange", alternate, "write")
    current = await still_there(channel, lambda: exchange_named(channel, name))
    if current is None:
        if name.startswith(RESERVED):
            raise errors.access_refused(f"exchange name '{name}' contains reserved prefix 'amq.*'")
        done = await change(
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


async def delete_exchange(channel: Channel, method: spec.ExchangeDelete) -> Method | None:
    """exchange.delete."""
    vhost, name = channel.connection.vhost, method.exchange
    check_not_default(name)
    check(channel, "exchange", name, "configure")
    if name.startswith(RESERVED):
        raise errors.access_refused(
            f"deletion of system exchange '{name}' in vhost '{vhost}' not allowed"
        )
    try:
        await change(channel, DeleteExchange(vhost, name, method.if_unused))
    except ChangeRefused as error:
        if error.refusal.kind == "in_use":
            raise errors.precondition_failed(
                f"exchange '{name}' in vhost '{vhost}' in use"
            ) from None
        if error.refusal.kind != "not_found":
            raise
    return None if method.nowait else spec.ExchangeDeleteOk()
