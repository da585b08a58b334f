"""A connection's actor, its channels and their operations, over a stream in memory."""

from __future__ import annotations

from struct import pack
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from leveret.actors import Ref
from leveret.amqp import ConnectionState, spec
from leveret.amqp.events import Ack, ContentReceived, MethodReceived
from leveret.broker.connections.connection import CLOSE_WITHIN_S, REPORT
from leveret.broker.connections.flow import IN_FLIGHT_BYTES_MAX
from leveret.broker.connections.messages import Blocked, HungUp
from leveret.broker.messages import LeaderChanged, QueueMessage, Written
from leveret.broker.queues.lead import Lead
from leveret.broker.queues.queue import QueueActor
from leveret.catalog.commands import DeleteQueue
from tests.broker.node_lab import HEADER, Client, Lab, lab

CHANNEL_CLOSE = spec.ChannelClose(reply_code=200, class_id=0, method_id=0)
CONNECTION_CLOSE = spec.ConnectionClose(reply_code=200, class_id=0, method_id=0)


async def declared(client: Client, name: str = "q", *, exclusive: bool = False) -> None:
    client.says(1, spec.QueueDeclare(queue=name, durable=not exclusive, exclusive=exclusive))
    (ok,) = await client.hears_methods()
    assert isinstance(ok, spec.QueueDeclareOk)


def held(node: Lab, name: str = "q") -> tuple[int, int]:
    """Ready and held messages of a queue that nobody asks about."""
    state = node.shard_machine.queues[node.queue(name).uid]
    return state.live, state.next - 1


async def counts(client: Client, name: str = "q") -> tuple[int, int]:
    """Ready messages and consumers, as a passive declaration says."""
    client.says(1, spec.QueueDeclare(queue=name, passive=True))
    methods = await client.hears_methods()
    (ok,) = [m for m in methods if isinstance(m, spec.QueueDeclareOk)]
    return ok.message_count, ok.consumer_count


# Closing while something is under way


async def test_a_get_of_a_channel_that_closed_while_it_waited_takes_nothing() -> None:
    async with lab() as node:
        client, other = await node.connect(), await node.connect()
        await declared(client)
        client.publishes("q")
        await client.hears()
        node.shard_group.lose_leader()
        client.says(1, spec.BasicGet(queue="q"))
        await client.hears()
        client.ref.tell(HungUp())
        await trio.testing.wait_all_tasks_blocked()

        node.shard_group.find_leader()

        assert (1, 0) == await counts(other)


async def test_a_consume_whose_connection_ended_while_it_waited_leaves_no_consumer() -> None:
    async with lab() as node:
        client, other = await node.connect(), await node.connect()
        await declared(client)
        node.shard_group.lose_leader()
        client.says(1, spec.BasicConsume(queue="q", consumer_tag="c"))
        await client.hears()
        client.ref.tell(HungUp())
        await trio.testing.wait_all_tasks_blocked()

        node.shard_group.find_leader()
        other.publishes("q")

        assert (1, 0) == await counts(other)


async def test_a_consume_that_waits_for_the_catalog_ends_with_its_connection() -> None:
    async with lab() as node:
        client, other = await node.connect(), await node.connect()
        await declared(other)
        client.publishes("q", count=5)
        await client.hears()
        node.shard_group.hold()
        client.publishes("q")  # consume waits until the queue has this
        client.says(1, spec.BasicConsume(queue="q", consumer_tag="c"))
        await client.hears()
        client.ref.tell(HungUp())
        await trio.testing.wait_all_tasks_blocked()

        node.shard_group.release()

        assert (6, 0) == await counts(other)


async def test_a_closed_channel_does_not_wait_for_its_operation(
    autojump_clock: MockClock,
) -> None:
    async with lab() as node:
        client = await node.connect()
        await declared(client)
        node.shard_group.lose_leader()
        client.says(1, spec.BasicGet(queue="q"), CHANNEL_CLOSE)
        await trio.sleep(CLOSE_WITHIN_S + 1)

        assert [spec.ChannelCloseOk] == [type(m) for m in await client.hears_methods()]
        client.says(1, spec.ChannelOpen())
        node.shard_group.find_leader()

        assert [spec.ChannelOpenOk] == [type(m) for m in await client.hears_methods()]


async def test_an_exclusive_queue_goes_though_its_connection_ended_before_declare_ok() -> None:
    async with lab() as node:
        client = await node.connect()
        node.catalog_group.hold()
        client.says(1, spec.QueueDeclare(queue="mine", exclusive=True))
        await client.hears()
        client.ref.tell(HungUp())
        await trio.testing.wait_all_tasks_blocked()

        node.catalog_group.release()
        await trio.testing.wait_all_tasks_blocked()

        assert node.catalog.model.queue("/", "mine") is None


async def test_a_deleted_exclusive_queue_is_not_kept_by_its_connection() -> None:
    async with lab() as node:
        client = await node.connect()
        for _ in range(3):
            await declared(client, "mine", exclusive=True)
            client.says(1, spec.QueueDelete(queue="mine"))
            await client.hears()

        client.ref.tell(HungUp())
        before = len(node.catalog_group.entries)
        await trio.testing.wait_all_tasks_blocked()

        assert before == len(node.catalog_group.entries)


# Consumers


async def test_a_queue_deleted_during_consume_answers_with_404() -> None:
    async with lab() as node:
        client, other = await node.connect(), await node.connect()
        await declared(client)
        node.shard_group.lose_leader()
        client.says(1, spec.BasicConsume(queue="q", consumer_tag="c"))
        await client.hears()

        await node.change(DeleteQueue("/", "q", node.queue("q").uid))

        (close,) = await client.hears_methods()
        assert isinstance(close, spec.ChannelClose)
        assert close.reply_code == 404
        assert not other.was_hung_up


async def test_a_cancelled_consumer_is_let_go_when_its_last_message_is_settled() -> None:
    async with lab() as node:
        client = await node.connect()
        await declared(client)
        client.says(1, spec.BasicConsume(queue="q", consumer_tag="c"))
        client.publishes("q")
        await client.hears()
        client.says(1, spec.BasicCancel(consumer_tag="c"))
        await client.hears()
        actor = node.queue_actor("q")
        assert len(actor._consumers) == 1

        client.says(1, spec.BasicAck(delivery_tag=1))
        await client.hears()

        assert not actor._consumers
        assert isinstance(actor._lead, Lead)
        assert not actor._lead.dispatcher.consumers


async def test_consumers_get_on_after_their_queue_has_crashed() -> None:
    async with lab() as node:
        client = await node.connect()
        await declared(client)
        client.says(1, spec.BasicConsume(queue="q", consumer_tag="c"))
        client.publishes("q")
        await client.hears()

        node.crash_queue("q")
        await client.hears()
        client.publishes("q")

        (delivery,) = await client.hears()
        assert isinstance(delivery, ContentReceived)
        assert (0, 1) == await counts(client)


async def test_news_of_a_leader_that_comes_after_the_channel_attaches_nothing() -> None:
    async with lab() as node:
        client = await node.connect()
        await declared(client)
        client.says(1, spec.BasicConsume(queue="q", consumer_tag="c"))
        await client.hears()
        (consumer,) = node.queue_actor("q")._consumers.values()
        client.says(1, CHANNEL_CLOSE)
        await client.hears()
        client.says(1, spec.ChannelOpen())
        client.ref.tell(LeaderChanged(node.queue("q").uid, consumer))
        await client.hears()

        assert (0, 0) == await counts(client)
        assert not node.queue_actor("q")._consumers


async def test_an_operation_ends_with_its_connection() -> None:
    async with lab() as node:
        client = await node.connect()
        node.catalog_group.hold()
        before = len(node.nursery.child_tasks)
        client.says(1, spec.QueueDeclare(queue="q", passive=True))
        await client.hears()
        assert len(node.nursery.child_tasks) == before + 1

        client.ref.tell(HungUp())
        await trio.testing.wait_all_tasks_blocked()

        assert len(node.nursery.child_tasks) == before


async def test_a_change_of_leader_does_not_bring_a_closed_channels_consumer_back() -> None:
    async with lab() as node:
        client, other = await node.connect(), await node.connect()
        await declared(client)
        client.says(1, spec.BasicConsume(queue="q", consumer_tag="c"))
        await client.hears()
        node.shard_group.lose_leader()
        client.says(1, CHANNEL_CLOSE)
        node.shard_group.find_leader()
        await client.hears()
        client.says(1, spec.ChannelOpen())
        await client.hears()
        node.shard_group.lose_leader()
        node.shard_group.find_leader()
        client.publishes("q")
        await client.hears()

        assert (1, 0) == await counts(other)


async def test_no_consumer_stops_because_deliveries_were_refused_by_the_channels_limit() -> None:
    async with lab() as node:
        client = await node.connect()
        await declared(client)
        client.says(1, spec.BasicQos(prefetch_count=2, is_global=True))
        for tag in "ab":
            client.says(1, spec.BasicConsume(queue="q", consumer_tag=tag))
        client.publishes("q", count=3_000)
        got = 0
        while deliveries := [e for e in await client.hears() if isinstance(e, ContentReceived)]:
            got += len(deliveries)
            assert len(deliveries) <= 2
            client.says(1, spec.BasicAck(delivery_tag=got, multiple=True))

        assert got == 3_000
        lead = node.queue_actor("q")._lead
        assert isinstance(lead, Lead)
        # What is not worth a report yet counts on.
        assert all(c.unwritten < REPORT for c in lead.dispatcher.consumers.values())


async def test_what_was_written_is_reported_a_part_of_the_window_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reports: list[int] = []
    receive = QueueActor.receive

    def received(queue: QueueActor, message: QueueMessage) -> None:
        if isinstance(message, Written):
            reports.append(message.count)
        receive(queue, message)

    monkeypatch.setattr(QueueActor, "receive", received)
    async with lab() as node:
        client = await node.connect()
        await declared(client)
        client.says(1, spec.BasicConsume(queue="q", consumer_tag="c"))
        await client.hears()
        for _ in range(2 * REPORT):
            client.publishes("q")
            await client.hears()

    assert [REPORT, REPORT] == reports


# Publishing


async def test_what_waits_behind_an_operation_counts_in_the_flow() -> None:
    async with lab() as node:
        client = await node.connect()
        await declared(client)
        node.catalog_group.hold()
        client.says(1, spec.QueueDeclare(queue="r", durable=True))
        method = spec.BasicPublish(routing_key="q")
        size = IN_FLIGHT_BYTES_MAX // 8
        header = b"\x00\x3c\x00\x00" + pack(">Q", size) + b"\x00\x00"
        client.send(client.own.send_content(1, method, header, bytes(size)) * 9)
        await client.hears()
        with trio.move_on_after(0) as reading:
            await client.flow.go()
        assert reading.cancelled_caught

        node.catalog_group.release()
        await client.hears()

        assert client.flow.in_flight_bytes == 0
        await client.flow.go()


async def test_a_flood_of_small_messages_with_changing_keys_leaves_the_node_up() -> None:
    async with lab() as node:
        client = await node.connect()
        await declared(client, "q")
        await declared(client, "r")
        one = client.own.send_content(1, spec.BasicPublish(routing_key="q"), HEADER, b"x")
        two = client.own.send_content(1, spec.BasicPublish(routing_key="r"), HEADER, b"x")
        client.says(1, spec.ConfirmSelect())
        for _ in range(40):
            client.send((one + two) * 1_000)

        acks = [e for e in await client.hears() if isinstance(e, Ack)]

        # Two queues confirm in turns, so the last tag need not come last.
        assert max(ack.delivery_tag for ack in acks) == 80_000
        assert (40_000, 0) == await counts(client, "r")


async def test_malformed_headers_do_not_crash_a_headers_exchange() -> None:
    async with lab() as node:
        client = await node.connect()
        await declared(client)
        client.says(1, spec.QueueBind(queue="q", exchange="amq.headers", routing_key=""))
        client.says(1, spec.ConfirmSelect())
        table = b"\x05ab"
        header = b"\x00\x3c\x00\x00" + pack(">QH", 1, 1 << 13) + pack(">I", len(table)) + table
        method = spec.BasicPublish(exchange="amq.headers", routing_key="")
        client.send(client.own.send_content(1, method, header, b"x") * 5)

        events = await client.hears()

        assert [5] == [e.delivery_tag for e in events if isinstance(e, Ack)]


async def test_a_publish_before_an_error_of_its_channel_is_confirmed_first() -> None:
    async with lab() as node:
        client = await node.connect()
        await declared(client)
        client.says(1, spec.ConfirmSelect())
        await client.hears()
        client.publishes("q", count=3)
        await client.hears()
        client.publishes("q", count=2)
        client.says(1, spec.BasicAck(delivery_tag=99))

        events = await client.hears()

        assert isinstance(events[-1], MethodReceived)
        assert isinstance(events[-1].method, spec.ChannelClose)
        assert node.shard_machine.queues[node.queue("q").uid].live == 5


async def test_a_connection_that_begins_to_publish_during_an_alarm_is_told() -> None:
    async with lab() as node:
        client = await node.connect()
        await declared(client)
        client.ref.tell(Blocked("low on disk"))
        assert await client.hears() == []

        client.publishes("q")
        assert [spec.ConnectionBlocked] == [type(m) for m in await client.hears_methods()]
        client.ref.tell(Blocked(None))

        assert [spec.ConnectionUnblocked] == [type(m) for m in await client.hears_methods()]


# Time


async def test_a_client_that_is_gone_is_given_up_though_a_send_waits_for_it(
    autojump_clock: MockClock,
) -> None:
    async with lab() as node:
        client = await node.connect(heartbeat_s=10)
        await declared(client)
        client.is_reading = trio.Event()
        client.says(1, spec.QueueDeclare(queue="q", passive=True))

        await trio.sleep(29)
        assert not client.was_hung_up
        await trio.sleep(10)

        assert client.was_hung_up


async def test_an_idle_client_gets_heartbeats(autojump_clock: MockClock) -> None:
    async with lab() as node:
        client = await node.connect(heartbeat_s=10)

        for _ in range(10):
            client.flow.heard()
            await trio.sleep(5)

        assert not client.was_hung_up
        assert client.frames.count(b"\x08\x00\x00\x00\x00\x00\x00\xce") >= 4


async def test_connection_close_is_answered_behind_what_was_published() -> None:
    async with lab() as node:
        client = await node.connect()
        await declared(client)
        node.shard_group.hold()
        client.publishes("q")
        client.says(0, CONNECTION_CLOSE)
        assert await client.hears() == []

        node.shard_group.release()

        assert [spec.ConnectionCloseOk] == [type(m) for m in await client.hears_methods()]
        assert client.server.state is ConnectionState.CLOSED
        assert held(node) == (1, 1)


@pytest.mark.parametrize("missing", ["queue", "exchange"])
async def test_what_finds_no_actor_is_not_confirmed(missing: str) -> None:
    """So it is while a node ends: what it did not store, nobody is to count on."""
    async with lab() as node:
        client = await node.connect()
        await declared(client)
        client.says(1, spec.ConfirmSelect())
        client.publishes("q")
        assert isinstance((await client.hears())[-1], Ack)
        ref: Ref[Any] | None = (
            node.directory.queue(node.queue("q").uid)
            if missing == "queue"
            else node.directory.exchange("/", "")
        )
        assert ref is not None
        ref.close()
        await ref.stopped()

        client.publishes("q", count=2)

        told = await client.hears()
        assert told
        assert not any(isinstance(event, Ack) for event in told)
        nacks = [event.method for event in told if isinstance(event, MethodReceived)]
        assert [2, 3] == [nack.delivery_tag for nack in nacks if isinstance(nack, spec.BasicNack)]
