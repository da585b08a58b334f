"""A cluster whose nodes are killed: a robust client's program does not notice."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from leveret.client import Channel, PublishRefused, connect
from tests.client.brokers import Nodes
from tests.support import nodes

MESSAGES = 1_500


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    folder: Path = tmp_path_factory.mktemp("failover")
    cluster = Nodes("cluster", nodes.members(folder))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def cluster(running: Nodes, caplog: pytest.LogCaptureFixture) -> Nodes:
    caplog.set_level(logging.ERROR, "leveret.client")
    running.heal()
    return running


async def heal(cluster: Nodes) -> None:
    await trio.to_thread.run_sync(cluster.heal)


async def test_nothing_is_lost_and_nobody_notices_when_nodes_die(cluster: Nodes, name: str) -> None:
    received: Counter[int] = Counter()
    halfway = trio.Event()

    async def produce() -> None:
        async with connect(cluster.url) as connection, connection.channel() as channel:
            async with channel.publisher(name, window=50, mandatory=True) as publisher:
                for number in range(MESSAGES):
                    await publisher.send(b"%d" % number)
                    if number in {MESSAGES // 4, MESSAGES // 2}:
                        cluster.at(connection.address).kill()
                        halfway.set()
                        await trio.sleep(1.0)
                        await heal(cluster)
            assert connection.statistics().recoveries >= 1

    async def consume() -> None:
        async with connect(cluster.url) as connection, connection.channel() as channel:
            async for message in channel.consume(name, prefetch=50):
                received[int(message.body)] += 1
                await message.ack()
                if len(received) == MESSAGES:
                    return

    with trio.fail_after(90):
        async with connect(cluster.url) as connection, connection.channel() as channel:
            await channel.declare_queue(name)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(produce)
            nursery.start_soon(consume)
            await halfway.wait()

    assert set(range(MESSAGES)) == set(received)


async def test_what_is_sent_again_is_stored_once(cluster: Nodes, name: str) -> None:
    with trio.fail_after(90):
        async with connect(cluster.url) as connection, connection.channel() as channel:
            assert connection.guarantee == "exactly once"
            await channel.declare_queue(name)
            async with channel.publisher(name, window=200) as publisher:
                for number in range(MESSAGES):
                    await publisher.send(b"%d" % number)
                    if number in {MESSAGES // 4, MESSAGES // 2}:
                        cluster.at(connection.address).kill()
                        await trio.sleep(0.5)
                        await heal(cluster)
            assert connection.statistics().recoveries >= 2
            bodies: list[int] = []
            async with channel.consume(name) as deliveries:
                while len(bodies) < MESSAGES:
                    message = await anext(deliveries)
                    bodies.append(int(message.body))
                    await message.ack()
                await trio.sleep(0.2)
                assert deliveries.buffered == 0

    assert list(range(MESSAGES)) == bodies


async def test_a_consumer_goes_on_when_its_node_dies(cluster: Nodes, name: str) -> None:
    with trio.fail_after(60):
        async with connect(cluster.url) as connection, connection.channel() as channel:
            await channel.declare_queue(name)
            async with channel.consume(name) as deliveries:
                await channel.publish(b"before", name)
                assert await (await anext(deliveries)).ack()
                await trio.sleep(0.5)  # its settlement is committed
                dead = connection.address
                cluster.at(dead).kill()
                await channel.publish(b"after", name)
                message = await anext(deliveries)
                assert message.body == b"after"
                assert await message.ack()
                assert connection.address != dead


async def publish_until_taken(channel: Channel, exchange: str) -> None:
    """Publish again while the dead node's own queue is bound: it is refused on its behalf."""
    while True:
        try:
            await channel.publish(b"to the new one", exchange=exchange, mandatory=True)
        except PublishRefused:
            await trio.sleep(0.2)
        else:
            return


async def test_what_the_program_has_of_its_own_is_made_again(cluster: Nodes, name: str) -> None:
    with trio.fail_after(60):
        async with connect(cluster.url) as connection, connection.channel() as channel:
            await channel.declare_exchange(name, "fanout")
            mine = await channel.declare_queue(exclusive=True)
            await channel.bind_queue(mine, name)
            before = mine.name
            async with channel.consume(mine, no_ack=True) as deliveries:
                cluster.at(connection.address).kill()
                await publish_until_taken(channel, name)
                assert (await anext(deliveries)).body == b"to the new one"
            assert mine.name != before
            await channel.delete_exchange(name)


async def test_a_cluster_that_was_away_as_a_whole_is_found_again(cluster: Nodes, name: str) -> None:
    with trio.fail_after(60):
        async with connect(cluster.url) as connection, connection.channel() as channel:
            await channel.declare_queue(name)
            await channel.publish(b"1", name)
            cluster.stop()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(channel.publish, b"2", name)
                await heal(cluster)
            bodies: set[bytes] = set()
            async with channel.consume(name) as deliveries:
                while bodies != {b"1", b"2"}:
                    message = await anext(deliveries)
                    bodies.add(message.body)
                    await message.ack()


async def test_one_address_is_enough_to_know_all(cluster: Nodes, name: str) -> None:
    first = cluster.members[0]
    with trio.fail_after(60):
        async with connect(first.urls[0]) as connection, connection.channel() as channel:
            await channel.declare_queue(name)
            everyone = {f"127.0.0.1:{member.ports[0]}" for member in cluster.members}
            assert everyone == set(connection.addresses)
            first.kill()
            await channel.publish(b"elsewhere", name)
            assert connection.address in everyone - {f"127.0.0.1:{first.ports[0]}"}


async def test_a_stream_is_read_on_where_the_program_is(cluster: Nodes, name: str) -> None:
    arguments = {"x-queue-type": "stream"}
    seen: list[int | None] = []
    with trio.fail_after(90):
        async with connect(cluster.url) as connection, connection.channel() as channel:
            await channel.declare_queue(name, durable=True, arguments=arguments)
            async with channel.publisher(name, window=200) as publisher:
                for number in range(MESSAGES):
                    await publisher.send(b"%d" % number)
            async for message in channel.consume(name, offset=10, prefetch=50):
                seen.append(message.offset)
                assert int(message.body) == message.offset
                await message.ack()
                if message.offset in {MESSAGES // 4, MESSAGES // 2}:
                    cluster.at(connection.address).kill()
                    await trio.sleep(0.5)
                    await heal(cluster)
                if message.offset == MESSAGES - 1:
                    break
            assert connection.statistics().recoveries >= 2

    assert list(range(10, MESSAGES)) == seen
