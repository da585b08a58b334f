"""What a client may take as fresh is not answered by a node that cannot know it."""

from __future__ import annotations

import pytest
import trio

from leveret.amqp import spec
from leveret.amqp.events import ContentReceived
from leveret.amqp.method import Method
from leveret.broker.channels.operations.asking import WITHIN_S
from leveret.catalog.commands import DeleteQueue
from leveret.catalog.everywhere import CHANNEL
from leveret.transport import NodeId
from tests.broker.node_lab import Client, Lab, lab
from tests.broker.test_connection import declared

NO_MAJORITY = "RESOURCE_ERROR - no majority of the cluster's nodes is reachable"

ASKED_FOR_WHAT_EXISTS: list[tuple[Method, type[Method]]] = [
    (spec.QueueDeclare(queue="q", durable=True), spec.QueueDeclareOk),
    (spec.QueueDeclare(queue="q", passive=True), spec.QueueDeclareOk),
    (spec.ExchangeDeclare(exchange="x", type="fanout"), spec.ExchangeDeclareOk),
    (spec.ExchangeDeclare(exchange="x", passive=True), spec.ExchangeDeclareOk),
    (spec.QueueBind(queue="q", exchange="x"), spec.QueueBindOk),
    (spec.QueueUnbind(queue="q", exchange="x", routing_key="other"), spec.QueueUnbindOk),
    (spec.ExchangeBind(destination="x", source="amq.topic"), spec.ExchangeBindOk),
    (spec.QueuePurge(queue="q"), spec.QueuePurgeOk),
    (spec.QueueDelete(queue="q"), spec.QueueDeleteOk),
    (spec.QueueDelete(queue="nope"), spec.QueueDeleteOk),
    (spec.ExchangeDelete(exchange="nope"), spec.ExchangeDeleteOk),
    (spec.BasicConsume(queue="q", consumer_tag="c"), spec.BasicConsumeOk),
]
"""Each can be answered from what a node knows already, or thinks that it knows."""


async def with_topology(node: Lab) -> Client:
    client = await node.connect()
    await declared(client, "q")
    client.says(1, spec.ExchangeDeclare(exchange="x", type="fanout"))
    client.says(1, spec.QueueBind(queue="q", exchange="x"))
    client.says(1, spec.ExchangeBind(destination="x", source="amq.topic"))
    await client.hears()
    return client


@pytest.mark.parametrize(
    ("asked", "answer"), ASKED_FOR_WHAT_EXISTS, ids=lambda method: getattr(method, "NAME", "")
)
async def test_nothing_is_answered_without_a_majority_and_all_once_there_is_one(
    asked: Method, answer: type[Method]
) -> None:
    async with lab() as node:
        client = await with_topology(node)
        node.catalog_group.hold()

        client.says(1, asked)
        assert await client.hears() == []

        node.catalog_group.release()
        assert [answer] == [type(m) for m in await client.hears_methods()]


async def test_what_another_node_deleted_meanwhile_is_not_found() -> None:
    async with lab() as node:
        client = await with_topology(node)
        uid = node.queue("q").uid
        node.catalog_group.hold()
        node.catalog.submit(DeleteQueue("/", "q", uid), lambda _: None)
        client.says(1, spec.QueueDeclare(queue="q", passive=True))
        assert await client.hears() == []

        node.catalog_group.release()

        (closed,) = await client.hears_methods()
        assert isinstance(closed, spec.ChannelClose)
        assert (404, "NOT_FOUND - no queue 'q' in vhost '/'") == (
            closed.reply_code,
            closed.reply_text,
        )


async def test_a_declaration_brings_back_what_another_node_deleted_meanwhile() -> None:
    async with lab() as node:
        client = await with_topology(node)
        old = node.queue("q")
        node.catalog_group.hold()
        node.catalog.submit(DeleteQueue("/", "q", old.uid), lambda _: None)
        client.says(1, spec.QueueDeclare(queue="q", durable=True))
        await client.hears()

        node.catalog_group.release()

        assert [spec.QueueDeclareOk] == [type(m) for m in await client.hears_methods()]
        assert node.queue("q").uid > old.uid


async def test_many_declarations_wait_for_two_barriers_at_most() -> None:
    async with lab() as node:
        clients = [await with_topology(node) for _ in range(20)]
        node.catalog_group.hold()
        before = len(node.catalog_group.entries)
        for client in clients:
            client.says(1, spec.QueueDeclare(queue="q", passive=True))
            assert await client.hears() == []

        node.catalog_group.release()

        for client in clients:
            assert [spec.QueueDeclareOk] == [type(m) for m in await client.hears_methods()]
        assert 2 == len(node.catalog_group.entries) - before


async def test_messages_go_on_without_the_catalog() -> None:
    async with lab() as node:
        client = await with_topology(node)
        node.catalog_group.hold()

        client.publishes("", exchange="x")
        client.says(1, spec.BasicGet(queue="q", no_ack=True))

        assert [ContentReceived] == [type(event) for event in await client.hears()]


@pytest.mark.parametrize(
    "asked", [spec.QueueDeclare(queue="q", passive=True), spec.QueueDeclare(queue="new")]
)
async def test_a_client_hears_why_nothing_can_be_declared(
    asked: Method, autojump_clock: trio.testing.MockClock
) -> None:
    async with lab() as node:
        client = await with_topology(node)
        node.catalog_group.hold()

        client.says(1, asked)
        await trio.sleep(WITHIN_S + 1)

        (closed,) = await client.hears_methods()
        assert isinstance(closed, spec.ConnectionClose)
        assert (506, NO_MAJORITY) == (closed.reply_code, closed.reply_text)
        assert (asked.CLASS_ID, asked.METHOD_ID) == (closed.class_id, closed.method_id)


TOLD: list[tuple[Method, type[Method]]] = [
    (spec.QueueDeclare(queue="new", durable=True), spec.QueueDeclareOk),
    (spec.QueueDeclare(queue="new", exclusive=True), spec.QueueDeclareOk),
    (spec.QueueDeclare(queue="q", durable=True), spec.QueueDeclareOk),
    (spec.ExchangeDeclare(exchange="new", type="fanout"), spec.ExchangeDeclareOk),
    (spec.ExchangeDeclare(exchange="x", type="fanout"), spec.ExchangeDeclareOk),
    (spec.QueueBind(queue="q", exchange="amq.topic"), spec.QueueBindOk),
    (spec.QueueBind(queue="q", exchange="x"), spec.QueueBindOk),
    (spec.QueueUnbind(queue="q", exchange="x"), spec.QueueUnbindOk),
    (spec.QueueDelete(queue="q"), spec.QueueDeleteOk),
    (spec.ExchangeDelete(exchange="x"), spec.ExchangeDeleteOk),
]
"""What a client may go on from through another node."""


@pytest.mark.parametrize(("asked", "answer"), TOLD, ids=lambda method: getattr(method, "NAME", ""))
async def test_a_client_is_answered_when_the_other_nodes_know_too(
    asked: Method, answer: type[Method]
) -> None:
    async with lab() as node:
        client = await with_topology(node)
        node.links.connect(2)

        client.says(1, asked)
        assert await client.hears() == []

        node.links.handlers[CHANNEL](NodeId(2), ("reached", node.catalog_group.applied_index))
        assert [answer] == [type(m) for m in await client.hears_methods()]
