"""The queues, exchange and bindings of a run: made before it, removed behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from leveret.client import NotFound

from .plan import QUEUE_HEADER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from leveret.amqp.fields import Value
    from leveret.client import Channel, Connection

    from .plan import Plan


class Made(NamedTuple):
    """What was not there before a run."""

    queues: list[str]
    exchange: str | None


async def prepare(connection: Connection, plan: Plan) -> Made:
    """Have what the plan needs; what is in a queue that is there stays in it.

    Raises:
        ClientError: the broker does not let us, or something is there and is different.
    """
    if plan.is_predeclared:
        return Made([], None)
    queues = [queue for queue in plan.queues if not await _is_there(connection, queue=queue)]
    exchange = None
    if plan.exchange_type and not await _is_there(connection, exchange=plan.exchange):
        exchange = plan.exchange
    async with connection.channel() as channel:
        await declare(channel, plan, range(len(plan.queues)))
    return Made(queues, exchange)


async def _is_there(connection: Connection, *, queue: str = "", exchange: str = "") -> bool:
    """Whether there is such a queue, or exchange."""
    # On a channel of its own: what is not there closes it, and a channel lets few such errors be.
    async with connection.channel() as channel:
        try:
            if queue:
                await channel.declare_queue(queue, passive=True)
            else:
                await channel.declare_exchange(exchange, passive=True)
        except NotFound:
            return False
        return True


async def declare(channel: Channel, plan: Plan, numbers: Iterable[int]) -> None:
    """Declare and bind some of the plan's queues; no-op if they are predeclared.

    Raises:
        PreconditionFailed: a queue or the exchange is there, and is different.
    """
    if plan.is_predeclared:
        return
    if plan.exchange_type:
        await channel.declare_exchange(plan.exchange, plan.exchange_type, durable=plan.is_durable)
    arguments: dict[str, Value] = dict(plan.arguments)
    for number in numbers:
        await channel.declare_queue(
            plan.queues[number],
            durable=plan.is_durable,
            auto_delete=plan.is_auto_delete,
            arguments=arguments,
        )
        if plan.exchange:
            await _bind(channel, plan, number)


async def _bind(channel: Channel, plan: Plan, number: int) -> None:
    queue = plan.queues[number]
    if plan.exchange_type == "headers":
        await channel.bind_queue(
            queue,
            plan.exchange,
            arguments={"x-match": "all", QUEUE_HEADER: plan.binding_of(number)},
        )
    else:
        await channel.bind_queue(queue, plan.exchange, plan.binding_of(number))


async def remove(connection: Connection, made: Made) -> None:
    """Delete what a run made.

    Raises:
        ClientError: the broker does not let us, or has gone.
    """
    async with connection.channel() as channel:
        for queue in made.queues:
            await channel.delete_queue(queue)
        if made.exchange is not None:
            await channel.delete_exchange(made.exchange)
