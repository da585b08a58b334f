"""What a client hears when the catalog refuses what its operation did not expect."""

from __future__ import annotations

import pytest

from leveret.amqp import spec
from leveret.broker.channels.operations.asking import error_of_refusal
from leveret.catalog.commands import (
    ARGUMENTS_BYTES_MAX,
    AnyCommand,
    DeclareExchange,
    DeleteVirtualHost,
    Refusal,
    RegisterNode,
    RemoveNode,
    decode,
    encode,
)
from tests.broker.node_lab import lab


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            [RegisterNode(2, "two", (), 1), RemoveNode(1)],
            "CONNECTION_FORCED - this node is not a member of the cluster any more",
        ),
        (
            [RegisterNode(1, "one", (), 2)],
            "CONNECTION_FORCED - this node is not a member of the cluster any more",
        ),
    ],
    ids=["node removed", "node started again"],
)
async def test_what_the_connection_stands_on_is_gone(changes: list[AnyCommand], text: str) -> None:
    async with lab() as node:
        client = await node.connect()
        for change in changes:
            await node.change(change)

        client.says(1, spec.QueueDeclare(queue="q"))

        (closed,) = await client.hears_methods()
        assert isinstance(closed, spec.ConnectionClose)
        assert (320, text) == (closed.reply_code, closed.reply_text)


def test_a_declaration_that_is_too_large_for_the_catalog_is_refused_with_its_reason() -> None:
    declaration = DeclareExchange(
        "/", "x", "fanout", True, False, False, bytes(ARGUMENTS_BYTES_MAX + 1)
    )
    refusal = decode(encode(declaration))
    assert isinstance(refusal, Refusal)

    error = error_of_refusal(refusal)

    assert ("channel", 406) == (error.scope, error.reply_code)
    assert "invalid declaration: Expected `bytes` of length <= 131072" in error.reply_text


async def test_a_virtual_host_that_goes_while_a_declaration_is_under_way_ends_the_connection() -> (
    None
):
    async with lab() as node:
        client = await node.connect()
        node.catalog_group.hold()
        node.catalog.submit(DeleteVirtualHost("/"), lambda _: None)
        client.says(1, spec.QueueDeclare(queue="q"))
        await client.hears()

        node.catalog_group.release()

        (closed,) = await client.hears_methods()
        assert isinstance(closed, spec.ConnectionClose)
        assert (320, "CONNECTION_FORCED - vhost '/' is deleted") == (
            closed.reply_code,
            closed.reply_text,
        )
