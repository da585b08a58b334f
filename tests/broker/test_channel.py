"""One channel's order, settling and consumers, on a whole node without sockets."""

from __future__ import annotations

from leveret.amqp import spec
from leveret.amqp.events import Ack, ContentReceived, MethodReceived
from leveret.broker.channels.channel import Channel
from leveret.catalog.commands import DeclareExchange, DeleteExchange, DeleteQueue
from leveret.catalog.model import EMPTY_TABLE
from tests.broker.node_lab import Client, Lab, lab
from tests.broker.test_connection import declared


async def consuming(node: Lab, *, no_ack: bool = False, prefetch: int = 0) -> Client:
    client = await node.connect()
    await declared(client)
    if prefetch:
        client.says(1, spec.BasicQos(prefetch_count=prefetch))
    client.says(1, spec.BasicConsume(queue="q", consumer_tag="c", no_ack=no_ack))
    await client.hears()
    return client


async def tags(client: Client) -> list[tuple[int, bool]]:
    events = [e for e in await client.hears() if isinstance(e, ContentReceived)]
    methods = [e.method for e in events]
    return [
        (m.delivery_tag, m.redelivered)
        for m in methods
        if isinstance(m, spec.BasicDeliver | spec.BasicGetOk)
    ]


async def test_requeued_messages_come_again_marked_and_in_their_places() -> None:
    async with lab() as node:
        client = await consuming(node)
        client.publishes("q", count=3)
        assert [(1, False), (2, False), (3, False)] == await tags(client)

        client.says(1, spec.BasicNack(delivery_tag=2, multiple=True, requeue=True))

        assert [(4, True), (5, True)] == await tags(client)


async def test_recover_returns_what_a_cancelled_consumer_holds() -> None:
    async with lab() as node:
        client = await consuming(node)
        client.publishes("q", count=2)
        await client.hears()
        client.says(1, spec.BasicCancel(consumer_tag="c"))
        await client.hears()
        client.says(1, spec.BasicRecover(requeue=True))
        await client.hears()

        client.says(1, spec.BasicGet(queue="q"))
        assert [(3, True)] == await tags(client)
        actor = node.queue_actor("q")
        assert {None} == {consumer.tag for consumer in actor._consumers.values()}


async def test_a_tag_may_be_used_again_at_once_after_cancel() -> None:
    async with lab() as node:
        client = await consuming(node)
        client.publishes("q")
        await client.hears()
        client.says(
            1,
            spec.BasicCancel(consumer_tag="c"),
            spec.BasicConsume(queue="q", consumer_tag="c"),
        )
        assert [spec.BasicCancelOk, spec.BasicConsumeOk] == [
            type(m) for m in await client.hears_methods()
        ]

        client.says(1, spec.BasicAck(delivery_tag=1))
        client.publishes("q")

        assert [(2, False)] == await tags(client)
        assert len(node.queue_actor("q")._consumers) == 1


async def test_deliveries_of_a_cancelled_consumer_do_not_reach_the_next_of_its_tag() -> None:
    async with lab() as node:
        client = await consuming(node, prefetch=1)
        client.publishes("q", count=3)
        assert [(1, False)] == await tags(client)
        client.says(1, spec.BasicCancel(consumer_tag="c"))
        await client.hears()
        client.says(1, spec.BasicConsume(queue="q", consumer_tag="c"))

        assert [(2, False)] == await tags(client)


async def test_what_follows_an_operation_waits_for_it() -> None:
    async with lab() as node:
        client = await node.connect()
        node.catalog_group.hold()
        client.says(1, spec.QueueDeclare(queue="q", durable=True))
        client.publishes("q")
        client.says(1, spec.BasicGet(queue="q"))
        assert await client.hears() == []

        node.catalog_group.release()

        events = await client.hears()
        assert isinstance(events[0], MethodReceived)
        assert isinstance(events[0].method, spec.QueueDeclareOk)
        assert isinstance(events[1], ContentReceived)


async def test_a_publish_to_an_exchange_that_is_gone_closes_the_channel() -> None:
    async with lab() as node:
        client = await node.connect()
        await node.change(DeclareExchange("/", "x", "fanout", True, False, False, EMPTY_TABLE))
        client.publishes("k", exchange="x")
        assert await client.hears() == []
        await node.change(DeleteExchange("/", "x", False))

        client.publishes("k", exchange="x", count=3)

        (close,) = await client.hears_methods()
        assert isinstance(close, spec.ChannelClose)
        assert (404, 60, 40) == (close.reply_code, close.class_id, close.method_id)
        assert client.flow.in_flight_bytes == 0


async def test_a_channels_order_holds_over_two_exchanges() -> None:
    async with lab() as node:
        client = await node.connect()
        await declared(client)
        client.says(1, spec.QueueBind(queue="q", exchange="amq.fanout", routing_key=""))
        await client.hears()
        for exchange, key in (("", "q"), ("amq.fanout", "a"), ("amq.fanout", "b"), ("", "q")):
            client.publishes(key, exchange=exchange)
        await client.hears()
        client.says(1, *[spec.BasicGet(queue="q")] * 4)

        got = [e.method for e in await client.hears() if isinstance(e, ContentReceived)]
        keys = [m.routing_key for m in got if isinstance(m, spec.BasicGetOk)]
        assert ["q", "a", "b", "q"] == keys


async def test_holders_of_gotten_messages_go_with_their_queue() -> None:
    async with lab() as node:
        client = await node.connect()
        for _ in range(3):
            await declared(client)
            client.says(1, spec.BasicGet(queue="q"))
            await client.hears()
            await node.change(DeleteQueue("/", "q", node.queue("q").uid))
            await client.hears()

        assert not client_channel(node, client).holders


async def test_a_deleted_queue_cancels_its_consumer() -> None:
    async with lab() as node:
        client = await consuming(node)

        await node.change(DeleteQueue("/", "q", node.queue("q").uid))

        (cancel,) = await client.hears_methods()
        assert isinstance(cancel, spec.BasicCancel)
        assert (cancel.consumer_tag, cancel.nowait) == ("c", True)


async def test_the_last_message_of_a_channel_is_not_kept_when_it_was_split() -> None:
    async with lab() as node:
        client = await node.connect()
        await declared(client)
        client.says(1, spec.QueueBind(queue="q", exchange="amq.headers", routing_key=""))
        await client.hears()

        client.publishes("k", exchange="amq.headers", count=3)
        await client.hears()

        assert client_channel(node, client).publishing._last_run is None


async def test_a_consumer_without_acks_settles_what_it_gets() -> None:
    async with lab() as node:
        client = await consuming(node, no_ack=True)
        client.publishes("q", count=5)

        assert len(await tags(client)) == 5
        assert node.shard_machine.queues[node.queue("q").uid].live == 0


async def test_a_new_leader_is_told_what_the_channel_holds() -> None:
    async with lab() as node:
        client = await consuming(node, prefetch=2)
        client.publishes("q", count=4)
        await client.hears()

        node.shard_group.lose_leader()
        node.shard_group.find_leader()
        assert [] == await tags(client)
        client.says(1, spec.BasicAck(delivery_tag=2, multiple=True))

        assert [(3, True), (4, True)] == await tags(client)
        assert not [e for e in await client.hears() if isinstance(e, Ack)]


def client_channel(node: Lab, client: Client) -> Channel:
    actor = node.connections[client]
    return actor._channels[1]
