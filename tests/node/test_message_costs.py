"""What a message costs three nodes that replicate it, counted in a simulated cluster.

One publisher at node 1, one consumer at node 3, the queue led by node 2, one message at a time:
there is no batch to share a cost with. Counts are exact for a seed; bounds leave a tenth.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import pytest
import trio

from chaos.simulation.client import Client
from chaos.simulation.network import Socket
from chaos.simulation.process import HERE
from chaos.simulation.world import AMQP_PORT, World, run, until
from leveret.amqp import Ack, ContentReceived, spec
from leveret.transport import NodeId, TransportConfig

ONE, TWO, THREE = NodeId(1), NodeId(2), NodeId(3)
MESSAGES = 100
PACKAGES = ("/cluster/leveret/", "/nodes/leveret/", "/pysyncobj/")


class Costs(trio.abc.Instrument):
    """Counts, over all nodes: Python calls into the product, task steps, sends, syncs."""

    def __init__(self, world: World) -> None:
        self.totals: Counter[str] = Counter()
        for node in world.nodes:
            replicas = world.replicas(node)
            assert replicas is not None
            replicas.groups[0]._durability.on_durable(self._count_sync)  # type: ignore[attr-defined]

    def _count_sync(self) -> None:
        self.totals["syncs"] += 1

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        process = task.context.get(HERE)
        if process is not None and process.name != "world":
            self.totals["steps"] += 1

    def _profile(self, frame: FrameType, event: str, _: object) -> None:
        path = frame.f_code.co_filename
        if (
            event == "call"
            and any(part in path for part in PACKAGES)
            and HERE.get().name != "world"
        ):
            self.totals["calls"] += 1

    @contextmanager
    def counting(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        send = Socket.send

        async def counted(socket: Socket, data: bytes, flags: int = 0) -> int:
            if HERE.get().name != "world":
                self.totals["sends"] += 1
            return await send(socket, data, flags)

        monkeypatch.setattr(Socket, "send", counted)
        trio.lowlevel.add_instrument(self)
        self.totals.clear()
        sys.setprofile(self._profile)
        try:
            yield
        finally:
            sys.setprofile(None)
            trio.lowlevel.remove_instrument(self)
            monkeypatch.undo()


async def open_at(world: World, node: NodeId) -> Client:
    client = Client(world.hosts[node].address, AMQP_PORT)
    await client.open(within_s=10)
    return client


async def declare_at_leader(world: World, client: Client, leader: NodeId) -> str:
    """Declare a queue that `leader` leads, and return its name."""
    replicas = world.replicas(leader)
    assert replicas is not None
    for number in range(20):
        name = f"q{number}"
        await client.call(spec.QueueDeclare(queue=name, durable=True), spec.QueueDeclareOk)
        shard = replicas.groups[0]._machine.model.queue("/", name).shard  # type: ignore[attr-defined]
        if world.leader(shard) == leader:
            return name
    raise AssertionError("no queue of this leader")


async def publish(client: Client, queue: str, count: int) -> None:
    for _ in range(count):
        await client.publish("", queue, b"x" * 1024)
        assert isinstance(await client.next(within_s=10), Ack)


async def consume(client: Client) -> None:
    while True:
        event = await client.next(within_s=60)
        if isinstance(event, ContentReceived):
            assert isinstance(event.method, spec.BasicDeliver)
            await client.tell(spec.BasicAck(delivery_tag=event.method.delivery_tag, multiple=True))


def test_a_message_alone_costs_three_nodes_so_much(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(world: World) -> Counter[str]:
        world.start()
        assert await until(
            lambda: all(
                h.process is not None and h.process.is_serving for h in world.hosts.values()
            ),
            within_s=30,
        )
        await trio.sleep(8)  # the leaders are spread
        publisher, consumer = await open_at(world, ONE), await open_at(world, THREE)
        queue = await declare_at_leader(world, publisher, TWO)
        await consumer.call(spec.BasicQos(prefetch_count=200), spec.BasicQosOk)
        await consumer.call(spec.BasicConsume(queue=queue), spec.BasicConsumeOk)
        await publisher.call(spec.ConfirmSelect(), spec.ConfirmSelectOk)
        world.nursery.start_soon(consume, consumer)
        await publish(publisher, queue, 30)
        costs = Costs(world)
        with costs.counting(monkeypatch):
            await publish(publisher, queue, MESSAGES)
        return costs.totals

    totals, _ = run(5, main, snapshot_entries=100_000, links=TransportConfig())

    each = {name: count / MESSAGES for name, count in totals.items()}
    assert each["syncs"] < 4.0, each
    assert each["sends"] < 13, each
    assert each["steps"] < 79, each
    assert each["calls"] < 2_870, each
