"""The methods that wait: for the catalog to agree, or for a queue's leader to answer.

Each is a coroutine beside the connection's actor that returns the reply, or raises what closes
the channel or connection.  The channel takes no other method until it is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from leveret.amqp import spec

from . import bindings, consumers, exchanges, queues, replies, transactions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from leveret.amqp.method import Method
    from leveret.broker.channels.channel import Channel

    Operation = Callable[[Channel, Method], Awaitable[Method | None]]

_OPERATIONS: Final = {
    spec.ExchangeDeclare: exchanges.declare_exchange,
    spec.ExchangeDelete: exchanges.delete_exchange,
    spec.ExchangeBind: bindings.bind_exchange,
    spec.ExchangeUnbind: bindings.bind_exchange,
    spec.QueueDeclare: queues.declare_queue,
    spec.QueueBind: bindings.bind_queue,
    spec.QueueUnbind: bindings.bind_queue,
    spec.QueueDelete: queues.delete_queue_named,
    spec.QueuePurge: queues.purge_queue,
    spec.BasicConsume: consumers.consume,
    spec.BasicCancel: consumers.cancel,
    spec.BasicGet: consumers.get,
    spec.TxCommit: transactions.commit,
}


def operation_of(channel: Channel, method: Method) -> Operation | None:
    """Return what carries out `method`, or None if nothing does."""
    return replies.operation_of(channel, method) or cast(
        "Operation | None", _OPERATIONS.get(type(method))
    )
