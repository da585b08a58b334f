"""`leveret ctl`: what the verbs about policies ask for and print."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from leveret.cli.main import cli
from leveret.node.control.changes import Outcome
from leveret.node.control.controls import ControlError
from leveret.node.control.policies import PolicySeen
from tests.cli.canned_node import canned_node, recording_node

LIMIT = '{"max-length":5}'
SEEN = PolicySeen(
    vhost="/", name="p", pattern="^a", apply_to="queues", definition={"max-length": 5}, priority=7
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / ".leveret/node-1"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["ctl", *arguments], prog_name="leveret")


@pytest.mark.parametrize("kind", ["policy", "operator_policy"])
def test_a_policy_is_set_with_rabbitmqctls_options(kind: str, folder: Path) -> None:
    options = ("-p", "shop", "--priority", "7", "--apply-to", "queues")
    with recording_node(folder, {"set_policy": Outcome(outcome="created")}) as asked:
        assert 0 == run(f"set_{kind}", *options, "p", "^a", LIMIT).exit_code
        assert 0 == run(f"set_{kind}", "p", "^a", LIMIT).exit_code

    operator = {"is_operator": True} if kind == "operator_policy" else {}
    common = {"do": "set_policy", "name": "p", "pattern": "^a", "definition": LIMIT, **operator}
    assert [
        {**common, "vhost": "shop", "priority": 7, "apply_to": "queues"},
        {**common, "vhost": "/", "priority": 0, "apply_to": "all"},
    ] == asked


@pytest.mark.parametrize(("kind", "is_operator"), [("policy", False), ("operator_policy", True)])
def test_a_policy_is_cleared_by_its_name(kind: str, is_operator: bool, folder: Path) -> None:
    with recording_node(folder, {"clear_policy": Outcome(outcome="deleted")}) as asked:
        assert 0 == run(f"clear_{kind}", "-p", "shop", "p").exit_code

    operator = {"is_operator": True} if is_operator else {}
    assert [{"do": "clear_policy", "vhost": "shop", "name": "p", **operator}] == asked


@pytest.mark.parametrize("verb", ["list_policies", "list_operator_policies"])
def test_policies_are_listed_as_a_table_as_lines_and_as_json(verb: str, folder: Path) -> None:
    with canned_node(folder, {"list_policies": [SEEN]}):
        table = run(verb).output
        lines = run(verb, "-q").output
        shown = json.loads(run(verb, "--json").output)

    assert ["vhost", "name", "pattern", "apply-to", "definition", "priority"] == (
        table.splitlines()[1].split()
    )
    assert f"/\tp\t^a\tqueues\t{LIMIT}\t7\n" == lines
    assert [
        {
            "vhost": "/",
            "name": "p",
            "pattern": "^a",
            "apply-to": "queues",
            "definition": {"max-length": 5},
            "priority": 7,
        }
    ] == shown


def test_a_refused_policy_ends_with_the_reason_and_what_is_so(folder: Path) -> None:
    refused = ControlError("refused", "Validation failed\n\nno", remedy="nothing was changed")
    with canned_node(folder, {"set_policy": refused}):
        result = run("set_policy", "p", "^a", "{}")

    assert result.exit_code == 6
    assert "Validation failed\n\nno" in result.stderr
    assert "nothing was changed" in result.stderr


@pytest.mark.parametrize("options", [("--priority", "x"), ("--apply-to", "x"), ()])
def test_a_wrong_command_line_asks_no_node(options: tuple[str, ...], folder: Path) -> None:
    arguments = ("p", "^a", LIMIT) if options else ("p", "^a")

    assert run("set_policy", *options, *arguments).exit_code == 2
