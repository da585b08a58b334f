"""Transient queues are gone with their node, and whoever declares one again has it."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from leveret.client import NotFound, connect
from leveret.testing import cluster


async def test_a_transient_queue_is_declared_anew_while_its_node_is_not_yet_given_up(
    autojump_clock: MockClock,
) -> None:
    """So do Celery's clients with their reply queue: on a 404 they give up."""
    async with cluster(3) as c:
        async with connect(c.urls[0], robust=False) as connection, connection.channel() as channel:
            await channel.declare_queue("q", durable=False)
            await channel.publish(b"gone with its node", "q")
        await c.kill(1)
        async with connect(c.urls[1]) as connection, connection.channel() as channel:
            queue = await channel.declare_queue("q", durable=False)
            await channel.publish(b"new", "q")

            message = await channel.get("q")

        assert queue.message_count == 0
        assert message is not None
        assert message.body == b"new"


async def test_a_passive_declare_says_that_a_transient_queue_went_with_its_node(
    autojump_clock: MockClock,
) -> None:
    async with cluster(3) as c:
        async with connect(c.urls[0], robust=False) as connection, connection.channel() as channel:
            await channel.declare_queue("q", durable=False)
        await c.kill(1)
        async with connect(c.urls[1]) as connection, connection.channel() as channel:
            with pytest.raises(NotFound):
                await channel.declare_queue("q", durable=False, passive=True)
