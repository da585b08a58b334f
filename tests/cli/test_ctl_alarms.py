"""`leveret ctl`: the verbs about alarms and the limit of memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from leveret.cli.main import cli
from leveret.node.control.alarms import AlarmSeen, MemoryLimit
from tests.cli.canned_node import canned_node, recording_node


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / ".leveret/node-1"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["ctl", *arguments], prog_name="leveret")


def test_alarms_are_listed_with_their_nodes(folder: Path) -> None:
    with canned_node(folder, {"alarms": [AlarmSeen(node="node-2", reason="low on memory")]}):
        assert run("alarms", "-q").output == "node-2\tlow on memory\n"
        expected = [{"node": "node-2", "reason": "low on memory"}]
        assert json.loads(run("alarms", "--json").output) == expected


@pytest.mark.parametrize(
    ("arguments", "watermark"), [(["0.4"], "0.4"), (["absolute", "2GiB"], "2GiB")]
)
def test_the_watermark_is_a_fraction_or_absolute(
    folder: Path, arguments: list[str], watermark: str
) -> None:
    limit = MemoryLimit(node="node-1", memory_limit_bytes=4_000_000_000)
    with recording_node(folder, {"set_vm_memory_high_watermark": limit}) as asked:
        done = run("set_vm_memory_high_watermark", *arguments)

    assert 0 == done.exit_code, done.output
    assert "node-1 holds publishers back above" in done.output
    assert asked == [{"do": "set_vm_memory_high_watermark", "watermark": watermark}]


@pytest.mark.parametrize(
    "arguments", [["much"], ["2GiB"], ["absolute"], ["absolute", "0.4"], ["0.4", "0.5"]]
)
def test_what_is_no_watermark_is_refused_before_a_node_is_asked(
    folder: Path, arguments: list[str]
) -> None:
    done = run("set_vm_memory_high_watermark", *arguments)

    assert 2 == done.exit_code
    assert "give a fraction" in done.output or "expected a fraction" in done.output
