"""Transactions of one channel, on a whole node without sockets."""

from __future__ import annotations

from leveret.amqp import spec
from leveret.amqp.events import ContentReceived
from leveret.amqp.method import Method
from leveret.broker.connections.flow import IN_FLIGHT_BYTES_MAX
from leveret.broker.connections.messages import HungUp
from leveret.catalog.commands import DeclareExchange, DeclareQueue, DeleteExchange, RegisterNode
from leveret.catalog.model import EMPTY_TABLE
from tests.broker.node_lab import HEADER, Client, Lab, lab
from tests.broker.test_channel import tags
from tests.broker.test_connection import CHANNEL_CLOSE, counts, declared


async def transactional(node: Lab) -> Client:
    """A client whose channel 1 is transactional, and the queue `q`."""
    client = await node.connect()
    await declared(client)
    client.says(1, spec.TxSelect())
    assert [spec.TxSelectOk] == await kinds(client)
    return client


async def kinds(client: Client) -> list[type[Method]]:
    return [type(method) for method in await client.hears_methods()]


async def error(client: Client) -> tuple[int, str, int, int]:
    (close,) = await client.hears_methods()
    assert isinstance(close, spec.ChannelClose)
    return close.reply_code, close.reply_text, close.class_id, close.method_id


async def consuming(node: Lab, client: Client, count: int) -> None:
    """Have `client` consume from `q`, in which somebody else publishes."""
    client.says(1, spec.BasicConsume(queue="q", consumer_tag="c"))
    await client.hears()
    (await node.connect()).publishes("q", count=count)


async def declare_far(node: Lab) -> None:
    """Have a queue `far` on node 2, which has no link: what is published to it is refused."""
    await node.change(RegisterNode(2, "two", (), 1))
    await node.change(DeclareQueue("/", "far", False, False, False, EMPTY_TABLE, 2, 1, 0))


def stored(node: Lab) -> int:
    """Messages of `q` that are not settled."""
    state = node.shard_machine.queues.get(node.queue("q").uid)
    return state.live if state is not None else 0


def publish_large(client: Client, size_bytes: int) -> None:
    method = spec.BasicPublish(exchange="", routing_key="q")
    header = HEADER[:4] + size_bytes.to_bytes(8, "big") + HEADER[12:]
    client.send(client.own.send_content(1, method, header, bytes(size_bytes)))


async def test_commit_ok_waits_until_the_publishes_are_stored() -> None:
    async with lab() as node:
        client = await transactional(node)
        client.publishes("q", count=3)
        await client.hears()
        assert stored(node) == 0
        node.shard_group.hold()
        client.says(1, spec.TxCommit())
        assert await client.hears() == []

        node.shard_group.release()

        assert [spec.TxCommitOk] == await kinds(client)
        assert stored(node) == 3
        assert (client.flow.in_flight_bytes, client.flow.held_bytes) == (0, 0)


async def test_nothing_is_settled_before_the_publishes_are_stored() -> None:
    async with lab() as node:
        client = await transactional(node)
        await consuming(node, client, 1)
        await client.hears()
        await declare_far(node)
        client.publishes("far")
        client.says(1, spec.BasicAck(delivery_tag=1), spec.TxCommit())

        expected = (406, "PRECONDITION_FAILED - partial tx completion", 90, 20)
        assert expected == await error(client)
        assert stored(node) == 1
        other = await node.connect()
        other.says(1, spec.BasicGet(queue="q"))
        assert [(1, True)] == await tags(other)


async def test_a_refused_publish_before_tx_select_does_not_fail_the_commit() -> None:
    async with lab() as node:
        client = await node.connect()
        await declare_far(node)
        client.publishes("far")
        client.says(1, spec.TxSelect())
        await client.hears()

        client.says(1, spec.TxCommit())

        assert [spec.TxCommitOk] == await kinds(client)


async def test_what_follows_a_commit_is_the_next_transaction() -> None:
    async with lab() as node:
        client = await transactional(node)
        node.shard_group.hold()
        client.publishes("q")
        client.says(1, spec.TxCommit())
        client.publishes("q", count=2)
        node.shard_group.release()

        assert [spec.TxCommitOk] == await kinds(client)
        assert stored(node) == 1
        client.says(1, spec.TxCommit())
        assert [spec.TxCommitOk] == await kinds(client)
        assert stored(node) == 3


async def test_rolled_back_settlements_come_back_in_their_order() -> None:
    async with lab() as node:
        client = await transactional(node)
        await consuming(node, client, 4)
        await client.hears()
        client.says(
            1,
            spec.BasicNack(delivery_tag=3, multiple=False, requeue=True),
            spec.BasicAck(delivery_tag=2, multiple=True),
            spec.TxRollback(),
            spec.BasicAck(delivery_tag=3, multiple=True),
            spec.TxCommit(),
        )

        assert [spec.TxRollbackOk, spec.TxCommitOk] == await kinds(client)
        assert stored(node) == 1
        client.says(1, spec.BasicAck(delivery_tag=0, multiple=True), spec.TxCommit())
        await client.hears()
        assert stored(node) == 0


async def test_a_new_leader_does_not_hand_out_what_a_transaction_settles() -> None:
    async with lab() as node:
        client = await transactional(node)
        await consuming(node, client, 2)
        await client.hears()
        client.says(1, spec.BasicAck(delivery_tag=2, multiple=True))

        node.shard_group.lose_leader()
        node.shard_group.find_leader()

        assert [] == await tags(client)
        client.says(1, spec.TxCommit())
        assert [spec.TxCommitOk] == await kinds(client)
        assert stored(node) == 0


async def test_what_a_transaction_settles_keeps_its_place_in_the_channels_prefetch() -> None:
    async with lab() as node:
        client = await transactional(node)
        client.says(1, spec.BasicQos(prefetch_count=2, is_global=True))
        client.says(1, spec.BasicConsume(queue="q", consumer_tag="d"))
        await consuming(node, client, 2)
        assert [(1, False), (2, False)] == await tags(client)
        client.says(1, spec.BasicAck(delivery_tag=2, multiple=True))
        (await node.connect()).publishes("q", count=2)
        assert [] == await tags(client)

        client.says(1, spec.TxCommit())

        assert [(3, False), (4, False)] == sorted(await tags(client))


async def test_what_a_cancelled_consumer_held_is_settled_by_the_commit() -> None:
    async with lab() as node:
        client = await transactional(node)
        await consuming(node, client, 2)
        await client.hears()
        client.says(
            1,
            spec.BasicAck(delivery_tag=2, multiple=True),
            spec.BasicCancel(consumer_tag="c"),
        )
        assert [spec.BasicCancelOk] == await kinds(client)
        assert (0, 0) == await counts(await node.connect())

        client.says(1, spec.TxCommit())

        assert [spec.TxCommitOk] == await kinds(client)
        assert stored(node) == 0


async def test_recover_leaves_what_the_transaction_settles() -> None:
    async with lab() as node:
        client = await transactional(node)
        await consuming(node, client, 2)
        await client.hears()

        client.says(1, spec.BasicAck(delivery_tag=1), spec.BasicRecover(requeue=True))

        assert [(3, True)] == await tags(client)


async def test_a_transaction_ends_with_its_connection() -> None:
    async with lab() as node:
        client, other = await transactional(node), await node.connect()
        await consuming(node, client, 1)
        await client.hears()
        client.publishes("q", count=5)
        client.says(1, spec.BasicAck(delivery_tag=1))
        await client.hears()

        client.ref.tell(HungUp())

        assert (1, 0) == await counts(other)
        other.says(1, spec.BasicGet(queue="q"))
        assert [(1, True)] == await tags(other)


async def test_a_channel_that_closes_while_it_commits_is_answered_behind_the_commit() -> None:
    async with lab() as node:
        client = await transactional(node)
        node.shard_group.hold()
        client.publishes("q")
        client.says(1, spec.TxCommit(), CHANNEL_CLOSE)
        assert await client.hears() == []

        node.shard_group.release()

        assert spec.ChannelCloseOk in await kinds(client)
        assert stored(node) == 1


async def test_an_exchange_deleted_before_the_commit_fails_it_before_anything_is_published() -> (
    None
):
    async with lab() as node:
        client = await transactional(node)
        await node.change(DeclareExchange("/", "x", "fanout", True, False, False, EMPTY_TABLE))
        client.publishes("q")
        client.publishes("k", exchange="x")
        assert await client.hears() == []
        await node.change(DeleteExchange("/", "x", False))

        client.says(1, spec.TxCommit())

        expected = (404, "NOT_FOUND - no exchange 'x' in vhost '/'", 90, 20)
        assert expected == await error(client)
        assert stored(node) == 0
        assert client.flow.held_bytes == 0


async def test_a_transaction_that_holds_too_much_closes_its_channel() -> None:
    async with lab() as node:
        client = await transactional(node)
        publish_large(client, IN_FLIGHT_BYTES_MAX)  # above the limit with what a message costs
        assert await client.hears() == []
        assert client.flow.in_flight_bytes == 0

        client.publishes("q")

        code, text, *caused_by = await error(client)
        assert (406, [60, 40]) == (code, caused_by)
        assert text.endswith(f"limits.in_flight_bytes ({IN_FLIGHT_BYTES_MAX}): commit more often")
        assert client.flow.held_bytes == 0
        assert stored(node) == 0


async def test_a_transaction_at_the_limit_can_be_committed() -> None:
    async with lab() as node:
        client = await transactional(node)
        for _ in range(2):
            publish_large(client, IN_FLIGHT_BYTES_MAX)
            client.says(1, spec.TxCommit())
            assert [spec.TxCommitOk] == await kinds(client)

        assert stored(node) == 2


async def test_a_get_does_not_see_what_its_own_transaction_publishes() -> None:
    async with lab() as node:
        client = await transactional(node)
        client.publishes("q")
        client.says(1, spec.BasicGet(queue="q"), spec.TxCommit(), spec.BasicGet(queue="q"))

        events = await client.hears()

        (got,) = [event for event in events if isinstance(event, ContentReceived)]
        assert isinstance(got.method, spec.BasicGetOk)
        assert got is events[-1]
