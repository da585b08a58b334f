"""`leveret ctl`: what the verbs about a queue's messages ask for and print."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from leveret.cli.main import cli
from leveret.node.control.queue_messages import Holder, MessageSeen
from tests.cli.canned_node import recording_node


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / ".leveret/node-1"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["ctl", *arguments], prog_name="leveret")


def message(position: int, *, holder: Holder | None = None, due: int | None = None) -> MessageSeen:
    return MessageSeen(
        position=position,
        sequence=position + 7,
        state="unacknowledged" if holder else "delayed" if due else "ready",
        redelivered=False,
        delivery_count=0,
        due_at_ms=due,
        expires_at_ms=None,
        holder=holder,
        exchange="",
        routing_key="orders",
        properties={"message_id": "m"},
        headers={"tenant": "a"},
        payload_bytes=3,
        payload_encoding="string",
        payload="one",
    )


def test_a_peek_shows_who_holds_what_and_what_is_due_when(folder: Path) -> None:
    holder = Holder(
        node=1, connection="node-1.17", channel=2, consumer_tag="till", since_ms=1_000_000_000_500
    )
    nobody = Holder(node=3, connection=None, channel=None, consumer_tag=None, since_ms=0)
    rows = [
        message(0, holder=holder),
        message(1, holder=nobody),
        message(2, due=1_000_000_000_000),
        message(3),
    ]
    with recording_node(folder, {"peek": rows}) as asked:
        lines = run("peek", "orders", "-q", "--offset", "5", "--count", "3").output.splitlines()

    assert [
        "0\tunacknowledged\tnode-1.17.2 till\t2001-09-09T01:46:40.500Z\t\torders\t3\tone",
        "1\tunacknowledged\tnode 3\t1970-01-01T00:00:00.000Z\t\torders\t3\tone",
        "2\tdelayed\t\t\t2001-09-09T01:46:40.000Z\torders\t3\tone",
        "3\tready\t\t\t\torders\t3\tone",
    ] == lines
    (request,) = asked
    assert (5, 3, 200) == (request["offset"], request["count"], request["body_bytes"])


def test_a_peek_for_programs_has_all_there_is(folder: Path) -> None:
    with recording_node(folder, {"peek": [message(0)]}):
        (row,) = json.loads(run("peek", "orders", "--json").output)

    assert set(MessageSeen.__struct_fields__) == row.keys()
    assert ({"message_id": "m"}, {"tenant": "a"}) == (row["properties"], row["headers"])


def test_more_than_an_answer_holds_is_refused_before_a_node_is_asked() -> None:
    assert 2 == run("peek", "orders", "--count", "101").exit_code
