"""What all publishers of a node together may have under way, counted in bytes."""

from __future__ import annotations

from typing import cast

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from leveret.amqp import errors, spec
from leveret.broker.budget import Budget
from leveret.broker.connections.flow import Flow
from leveret.broker.connections.listener import CHUNK_BYTES, _read
from leveret.broker.connections.sockets import ClientStream
from leveret.broker.messages import MESSAGE_BYTES
from leveret.catalog.commands import DeclareQueue
from tests.broker.node_lab import Client, Lab, lab

MIB = 1 << 20
BODY_BYTES = 8_000
BUDGET_BYTES = 4 * MIB


class Sending:
    """A client that sends the same octets over and over, as fast as it is read."""

    def __init__(self, client: Client, octets: bytes, *, times: int) -> None:
        self._client = client
        self._rest = octets * times
        self.read_bytes = 0
        self._quiet = trio.Event()

    @property
    def is_done(self) -> bool:
        return not self._rest

    async def receive(self, size_max: int) -> bytes:
        if not self._rest:
            await self._quiet.wait()
        await trio.lowlevel.checkpoint()
        chunk, self._rest = self._rest[:size_max], self._rest[size_max:]
        self.read_bytes += len(chunk)
        return chunk

    async def run(self) -> None:
        client = self._client
        await _read(cast("ClientStream", self), client.server, client.ref, client.flow)

    def hang_up(self) -> None:
        self._rest = b""
        self._quiet.set()


def a_publish(client: Client, size_bytes: int = BODY_BYTES, *, channel: int = 1) -> bytes:
    header = b"\x00\x3c\x00\x00" + size_bytes.to_bytes(8, "big") + b"\x00\x00"
    method = spec.BasicPublish(exchange="", routing_key="q")
    return client.own.send_content(channel, method, header, bytes(size_bytes))


async def declared(node: Lab) -> None:
    await node.change(DeclareQueue("/", "q", True, False, False, b"", 1, 1, 0))


def flow_of(budget: Budget) -> Flow:
    return Flow(16 * MIB, budget=budget)


async def test_many_publishers_together_get_no_more_than_the_budget_and_a_read_each(
    autojump_clock: MockClock,
) -> None:
    count = 40
    budget = Budget(BUDGET_BYTES)
    async with lab() as node:
        await declared(node)
        node.shard_group.hold()
        sendings = []
        for _ in range(count):
            client = await node.connect(flow=flow_of(budget))
            sendings.append(Sending(client, a_publish(client), times=100))
            node.nursery.start_soon(sendings[-1].run)

        await wait_all_tasks_blocked()
        read_bytes = sum(sending.read_bytes for sending in sendings)
        assert BUDGET_BYTES <= read_bytes <= BUDGET_BYTES + count * CHUNK_BYTES
        overhead_bytes = (read_bytes // BODY_BYTES) * MESSAGE_BYTES
        assert budget.used_bytes <= BUDGET_BYTES + count * CHUNK_BYTES + overhead_bytes
        assert sum(sending.is_done for sending in sendings) < count // 2

        node.shard_group.release()
        await wait_all_tasks_blocked()
        assert all(sending.is_done for sending in sendings)
        assert budget.used_bytes == 0
        state = node.shard_machine.queues[node.queue("q").uid]
        assert state.live == count * 100


async def test_who_publishes_nothing_is_read_while_publishers_wait(
    autojump_clock: MockClock,
) -> None:
    budget = Budget(BUDGET_BYTES)
    async with lab() as node:
        await declared(node)
        node.shard_group.hold()
        publisher, other = [await node.connect(flow=flow_of(budget)) for _ in range(2)]
        sending = Sending(publisher, a_publish(publisher), times=1000)
        node.nursery.start_soon(sending.run)
        await wait_all_tasks_blocked()
        assert budget.is_spent

        ask = other.own.send_method(1, spec.BasicQos(prefetch_count=1))
        asking = Sending(other, ask, times=10_000)
        node.nursery.start_soon(asking.run)
        await wait_all_tasks_blocked()
        assert asking.is_done
        assert not sending.is_done


async def test_messages_that_are_begun_end_though_the_budget_is_spent(
    autojump_clock: MockClock,
) -> None:
    budget = Budget(BUDGET_BYTES)
    async with lab() as node:
        await declared(node)
        clients = [await node.connect(flow=flow_of(budget)) for _ in range(4)]
        sendings = [Sending(client, a_publish(client, 2 * MIB), times=3) for client in clients]
        for sending in sendings:
            node.nursery.start_soon(sending.run)
        await wait_all_tasks_blocked()

        assert all(sending.is_done for sending in sendings)
        assert budget.used_bytes == 0


async def test_a_message_counts_from_its_header_on_by_the_size_that_it_announces() -> None:
    async with lab() as node:
        client = await node.connect()
        octets = a_publish(client, MIB)
        assert not client.server.unfinished
        client.server.receive_data(octets[:1000])
        assert list(client.server.unfinished.values()) == [MIB]
        client.server.receive_data(octets[1000:])
        assert not client.server.unfinished

        begun = a_publish(client, MIB)
        client.server.receive_data(begun[: begun.index(bytes(1000))])
        assert list(client.server.unfinished.values()) == [MIB]
        client.server.fail(errors.not_found("q"), 1)
        assert not client.server.unfinished


async def test_what_a_client_left_under_way_counts_until_the_queues_have_it(
    autojump_clock: MockClock,
) -> None:
    budget = Budget(BUDGET_BYTES)
    async with lab() as node:
        await declared(node)
        node.shard_group.hold()
        client = await node.connect(flow=flow_of(budget))
        sending = Sending(client, a_publish(client), times=50)
        node.nursery.start_soon(sending.run)
        await wait_all_tasks_blocked()
        client.ref.close()
        await client.ref.stopped()
        client.flow.close()
        await wait_all_tasks_blocked()
        assert budget.used_bytes > 50 * (BODY_BYTES + MESSAGE_BYTES)

        node.shard_group.release()
        await wait_all_tasks_blocked()
        assert budget.used_bytes == 0
