"""What a connection tells an operator of itself."""

from __future__ import annotations

from typing import cast

from leveret.actors import Ref
from leveret.amqp import spec
from leveret.broker.connections.descriptions import ConnectionDescription, Describe
from leveret.broker.connections.messages import Blocked, Shutdown
from tests.broker.node_lab import Client, lab


async def described(client: Client) -> ConnectionDescription:
    return await cast("Ref[Describe]", client.ref).ask(Describe(), within_s=10)


async def test_a_connection_tells_its_channels_and_consumers() -> None:
    async with lab() as node:
        client = await node.connect()
        client.says(1, spec.QueueDeclare(queue="q", durable=True))
        client.says(1, spec.BasicQos(prefetch_count=7))
        client.says(1, spec.ConfirmSelect())
        client.says(1, spec.BasicConsume(queue="q", consumer_tag="till", no_ack=True))
        client.says(2, spec.ChannelOpen())
        client.says(2, spec.BasicQos(prefetch_count=9, is_global=True))
        client.says(2, spec.TxSelect())
        await client.hears()

        one, two = (await described(client)).channels

        assert (1, True, False, 7, 0) == (
            one.number,
            one.confirm,
            one.transactional,
            one.prefetch,
            one.global_prefetch,
        )
        (consumer,) = one.consumers
        assert ("till", False, 7, node.queue("q").uid) == (
            consumer.tag,
            consumer.ack_required,
            consumer.prefetch,
            consumer.uid,
        )
        assert (2, False, True, 0, 9, []) == (
            two.number,
            two.confirm,
            two.transactional,
            two.prefetch,
            two.global_prefetch,
            two.consumers,
        )


async def test_a_channel_tells_what_its_client_has_not_acknowledged() -> None:
    async with lab() as node:
        client = await node.connect()
        client.says(1, spec.QueueDeclare(queue="q", durable=True))
        client.publishes("q")
        await client.hears()
        client.says(1, spec.BasicGet(queue="q"))
        await client.hears()

        assert [1] == [c.unacknowledged for c in (await described(client)).channels]


async def test_only_a_publisher_is_blocked_by_an_alarm() -> None:
    async with lab() as node:
        client = await node.connect()
        assert "running" == (await described(client)).state

        client.ref.tell(Blocked("low on disk"))
        assert "running" == (await described(client)).state
        client.publishes("q")
        await client.hears()
        assert "blocked" == (await described(client)).state


async def test_a_connection_that_was_told_to_end_is_closing() -> None:
    async with lab() as node:
        client = await node.connect()
        client.ref.tell(Shutdown("enough"))

        assert "closing" == (await described(client)).state
