"""Direct reply-to between the nodes of a cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from leveret.client import Channel, Unroutable, connect
from leveret.testing import Cluster, cluster


@asynccontextmanager
async def channel_at(nodes: Cluster, number: int) -> AsyncIterator[Channel]:
    """A channel of a connection that stays at one node."""
    async with connect(nodes.urls[number - 1], robust=False) as one, one.channel() as channel:
        yield channel


@pytest.mark.parametrize("requester", [1, 2, 3])
async def test_replies_find_requesters_on_any_node(
    autojump_clock: MockClock, requester: int
) -> None:
    async with (
        cluster(3) as nodes,
        channel_at(nodes, 1) as server,
        channel_at(nodes, requester) as channel,
        trio.open_nursery() as nursery,
    ):
        await server.declare_queue("rpc")

        async def serve() -> None:
            async for request in server.consume("rpc", no_ack=True):
                await server.reply(request, request.body.upper())

        nursery.start_soon(serve)
        with trio.fail_after(60):
            for text in (b"a", b"b"):
                assert (await channel.call(text, "rpc")).body == text.upper()
        nursery.cancel_scope.cancel()


async def test_mandatory_replies_for_a_node_that_is_gone_come_back(
    autojump_clock: MockClock,
) -> None:
    async with cluster(3) as nodes, channel_at(nodes, 1) as server:
        await server.declare_queue("rpc")
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                async with channel_at(nodes, 2) as channel:
                    await channel.call(b"", "rpc")

            nursery.start_soon(ask)
            async with server.consume("rpc") as deliveries:
                request = await anext(deliveries)
            requester = str(request.properties.reply_to)
            await server.publish(b"in time", requester, mandatory=True)
            nursery.cancel_scope.cancel()
        await nodes.kill(2)

        with pytest.raises(Unroutable):
            await server.publish(b"late", requester, mandatory=True)
