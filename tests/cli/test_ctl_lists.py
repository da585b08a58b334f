"""`leveret ctl`: what the verbs that list and end things ask for and print."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from leveret.cli.main import cli
from leveret.node.control.clients import (
    ChannelSeen,
    ClientSeen,
    Closed,
    ConnectionSeen,
    ConsumerSeen,
)
from leveret.node.control.cluster_wide import Listed
from leveret.node.control.entities import BindingSeen, ExchangeSeen, QueueSeen
from tests.cli.canned_node import canned_node, recording_node


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / ".leveret/node-1"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["ctl", *arguments], prog_name="leveret")


def queue(name: str, *, messages: int | None = 3, leader: str | None = "node-2") -> QueueSeen:
    return QueueSeen(
        name=name,
        type="quorum",
        messages=messages,
        messages_ready=messages,
        messages_unacknowledged=None if messages is None else 0,
        consumers=None if messages is None else 1,
        dead_letter_cycles=0,
        message_bytes=None if messages is None else 30,
        state="running" if leader else "down",
        leader=leader,
        members=["node-1", "node-2", "node-3"],
        online=["node-1", "node-2"],
        group=4,
        durable=True,
        auto_delete=False,
        exclusive=False,
        arguments={"x-queue-type": "quorum"},
        policy="limits",
        operator_policy=None,
        effective_policy_definition={"max-length": 5},
        vhost="/",
    )


def client() -> ClientSeen:
    connection = ConnectionSeen(
        pid="node-1.17",
        user="ada",
        peer_host="192.0.2.7",
        peer_port=40_000,
        state="running",
        channels=1,
        name="192.0.2.7:40000 -> 192.0.2.1:5672 (till)",
        user_provided_name="till",
        node="node-1",
        vhost="shop",
        host="192.0.2.1",
        port=5672,
        ssl=False,
        timeout=60,
    )
    channel = ChannelSeen(
        pid="node-1.17.1",
        user="ada",
        consumer_count=1,
        messages_unacknowledged=2,
        connection="node-1.17",
        number=1,
        vhost="shop",
        confirm=True,
        transactional=False,
        prefetch_count=10,
        global_prefetch_count=0,
    )
    consumer = ConsumerSeen(
        queue_name="orders",
        channel_pid="node-1.17.1",
        consumer_tag="ctag",
        ack_required=True,
        prefetch_count=10,
        priority=0,
        exclusive=False,
        vhost="shop",
    )
    return ClientSeen(connection=connection, channels=[channel], consumers=[consumer])


def test_queues_are_shown_with_counts_and_leaders(folder: Path) -> None:
    rows = [queue("orders"), queue("lost", messages=None, leader=None)]
    with canned_node(folder, {"list_queues": Listed(rows=rows, silent=[])}):
        text = run("list_queues").output

    assert re.search(r"name +type +messages_ready .* consumers +leader", text)
    assert re.search(r"orders +quorum +3 +0 +3 +1 +node-2", text)
    assert re.search(r"lost +quorum *\n", text)


def test_columns_are_chosen_in_their_order_and_cost_no_more_than_they_need(folder: Path) -> None:
    listed = Listed(rows=[queue("orders")], silent=[])
    with recording_node(folder, {"list_queues": listed}) as asked:
        lines = run("list_queues", "-p", "shop", "-q", "messages", "name").output
        rows = json.loads(run("list_queues", "name", "arguments", "--json").output)

    assert "3\torders\n" == lines
    assert [{"name": "orders", "arguments": {"x-queue-type": "quorum"}}] == rows
    assert [("shop", True), ("/", False)] == [(one["vhost"], one["counts"]) for one in asked]


def test_a_column_that_there_is_not_is_refused_with_those_that_there_are(folder: Path) -> None:
    result = run("list_queues", "colour")

    assert 2 == result.exit_code
    assert "messages_ready" in result.output


def test_nodes_that_tell_nothing_are_named_beside_the_list(folder: Path) -> None:
    listed = Listed(rows=[queue("orders")], silent=["node-3"])
    with canned_node(folder, {"list_queues": listed}):
        result = run("list_queues", "-q", "name")

    assert 0 == result.exit_code
    assert "orders\n" == result.stdout
    assert "leveret: node-3 did not answer: the queues that they lead are without counts\n" == (
        result.stderr
    )


def test_connections_channels_and_consumers_have_rabbitmqs_columns(folder: Path) -> None:
    listed = Listed(rows=[client()], silent=[])
    with canned_node(folder, {"list_clients": listed}):
        assert "node-1.17\tada\t192.0.2.7\t40000\trunning\t1\n" == (
            run("list_connections", "-q").output
        )
        assert "node-1.17.1\tada\t1\t2\n" == run("list_channels", "-q").output
        assert "orders\tnode-1.17.1\tctag\ttrue\t10\n" == (
            run("list_consumers", "-p", "shop", "-q").output
        )
        assert "" == run("list_consumers", "-q").output


def test_exchanges_and_bindings_have_rabbitmqs_columns(folder: Path) -> None:
    exchange = ExchangeSeen(
        name="events",
        type="topic",
        durable=True,
        auto_delete=False,
        internal=False,
        arguments={"alternate-exchange": "other"},
        policy=None,
        vhost="/",
    )
    binding = BindingSeen(
        source_name="events",
        source_kind="exchange",
        destination_name="orders",
        destination_kind="queue",
        routing_key="a.#",
        arguments={"n": 1},
        vhost="/",
    )
    with canned_node(folder, {"list_exchanges": [exchange], "list_bindings": [binding]}):
        assert "events\ttopic\n" == run("list_exchanges", "-q").output
        assert '{"alternate-exchange":"other"}\n' == (
            run("list_exchanges", "-q", "arguments").output
        )
        assert 'events\texchange\torders\tqueue\ta.#\t{"n":1}\n' == (
            run("list_bindings", "-q").output
        )


def test_all_connections_are_those_of_one_virtual_host_unless_it_says_global(
    folder: Path,
) -> None:
    listed = Listed(rows=[Closed(connections=2), Closed(connections=3)], silent=[])
    with recording_node(folder, {"close_all_connections": listed}) as asked:
        assert "5 connections are told to end\n" == (
            run("close_all_connections", "-p", "shop", "late").output
        )
        assert {"connections": 5} == json.loads(
            run("close_all_connections", "--global", "late", "--json").output
        )

    assert [("shop", "late"), (None, "late")] == [(one["vhost"], one["reason"]) for one in asked]


def test_queues_are_shown_with_their_policies(folder: Path) -> None:
    columns = ("name", "policy", "operator_policy", "effective_policy_definition")
    with canned_node(folder, {"list_queues": Listed(rows=[queue("q")], silent=[])}):
        assert 'q\tlimits\t\t{"max-length":5}\n' == run("list_queues", "-q", *columns).output
