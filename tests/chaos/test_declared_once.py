"""A declaration takes effect once, also where its answer is slow and others delete meanwhile."""

from __future__ import annotations

import trio

from chaos.simulation.client import Client, Refused
from chaos.simulation.world import AMQP_PORT, World, run, until
from leveret.amqp import spec
from leveret.transport import NodeId


async def open_client(world: World, node: NodeId) -> Client:
    client = Client(world.hosts[node].address, AMQP_PORT)
    await client.open(within_s=10)
    return client


async def declare(client: Client, *, passive: bool = False) -> spec.QueueDeclareOk:
    method = spec.QueueDeclare(queue="q", durable=True, passive=passive)
    return await client.call(method, spec.QueueDeclareOk, within_s=30)


async def is_there(client: Client) -> bool:
    try:
        await declare(client, passive=True)
    except Refused:
        return False
    return True


def test_a_queue_that_was_made_and_deleted_is_not_made_again_for_a_slow_answer() -> None:
    """A chaos run found it: the deletion was answered, and the queue was back."""

    async def main(world: World) -> None:
        world.start()
        assert await until(lambda: world.are_serving, within_s=20)
        leader = world.leader(0)
        assert leader is not None
        deaf = next(node for node in world.nodes if node != leader)
        slow, quick, looking = [await open_client(world, node) for node in (deaf, leader, leader)]
        others = [world.hosts[node].address for node in world.nodes if node != deaf]
        answers: list[spec.QueueDeclareOk] = []

        async def declare_slowly() -> None:
            answers.append(await declare(slow))

        async def delete() -> None:
            await quick.call(spec.QueueDelete(queue="q"), spec.QueueDeleteOk, within_s=30)

        async with trio.open_nursery() as nursery:
            for address in others:
                world.network.block(address, world.hosts[deaf].address)
            nursery.start_soon(declare_slowly)
            with trio.fail_after(2):
                while not await is_there(looking):  # noqa: ASYNC110 - another process
                    await trio.sleep(0.01)
            nursery.start_soon(delete)
            with trio.fail_after(2):
                while await is_there(looking):  # noqa: ASYNC110 - likewise
                    await trio.sleep(0.01)
            for address in others:
                world.network.unblock(address, world.hosts[deaf].address)
            world.network.let_flow()

        assert 0 == answers[0].message_count
        assert not await is_there(looking)
        for client in (slow, quick, looking):
            await client.close()

    run(1, main)
