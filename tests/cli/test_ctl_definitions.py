"""`leveret ctl`: definitions out to a file and in from one."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from leveret.cli.ctl_definitions import BATCH_MAX
from leveret.cli.main import cli
from leveret.node.control.definitions import Imported
from leveret.node.control.server import LINE_BYTES_MAX
from tests.cli.canned_node import canned_node, recording_node

DONE = Imported(created=1, changed=0, exists=2, refused=[])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / ".leveret/node-1"


def run(*arguments: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(cli, ["ctl", *arguments], input=typed, prog_name="leveret")


def queues(count: int, *, padding: str = "") -> list[dict[str, object]]:
    return [
        {"name": f"q{number}", "vhost": "/", "arguments": {"padding": padding}}
        for number in range(count)
    ]


def test_an_export_is_a_file_that_nobody_else_may_read(folder: Path) -> None:
    definitions = {"rabbit_version": "3.10.8", "users": [{"name": "ada"}], "queues": []}
    with canned_node(folder, {"export_definitions": definitions}):
        result = run("export_definitions", "out.json")
        printed = run("export_definitions", "-").output

    assert "out.json: 1 users, 0 queues\n" == result.output
    assert definitions == json.loads(Path("out.json").read_text()) == json.loads(printed)
    assert 0o600 == stat.S_IMODE(Path("out.json").stat().st_mode)


def test_a_file_that_cannot_be_written_or_read_says_so(folder: Path) -> None:
    with canned_node(folder, {"export_definitions": {}}):
        assert 2 == run("export_definitions", "none/out.json").exit_code
        result = run("import_definitions", "none/in.json")

    assert (2, "leveret: none/in.json cannot be read: No such file or directory\n") == (
        result.exit_code,
        result.output,
    )


def test_an_import_comes_from_a_file_or_the_standard_input(folder: Path) -> None:
    content = json.dumps({"vhosts": [{"name": "shop"}]})
    Path("in.json").write_text(content)
    with recording_node(folder, {"import_definitions": DONE}) as asked:
        assert "1 created, 0 changed, 2 there already\n" == (
            run("import_definitions", "in.json").output
        )
        run("import_definitions", typed=content)

    assert ["shop", "shop"] == [one["definitions"]["vhosts"][0]["name"] for one in asked]


def test_an_import_is_cut_into_requests_in_the_order_of_need(folder: Path) -> None:
    content = {
        "bindings": [
            {"source": "x", "vhost": "/", "destination": "q0", "destination_type": "queue"}
        ],
        "queues": queues(2 * BATCH_MAX + 1),
        "vhosts": [{"name": "/"}],
    }
    with recording_node(folder, {"import_definitions": DONE}) as asked:
        result = run("import_definitions", typed=json.dumps(content))

    parts = [[(part, len(made)) for part, made in one["definitions"].items()] for one in asked]
    assert [
        [("vhosts", 1)],
        [("queues", BATCH_MAX)],
        [("queues", BATCH_MAX)],
        [("queues", 1)],
        [("bindings", 1)],
    ] == parts
    assert "5 created, 0 changed, 10 there already\n" == result.output


def test_no_request_is_longer_than_a_node_takes(folder: Path) -> None:
    content = {"queues": queues(BATCH_MAX, padding="x" * 20_000)}
    with recording_node(folder, {"import_definitions": DONE}) as asked:
        assert 0 == run("import_definitions", typed=json.dumps(content)).exit_code

    assert BATCH_MAX == sum(len(one["definitions"]["queues"]) for one in asked)
    assert max(len(json.dumps(one)) for one in asked) < LINE_BYTES_MAX


def test_a_file_with_a_mistake_changes_nothing(folder: Path) -> None:
    content = {"vhosts": [{"name": "shop"}], "users": [{"name": "ada", "password_hash": "AAAA"}]}
    with recording_node(folder, {"import_definitions": DONE}) as asked:
        result = run("import_definitions", typed=json.dumps(content))

    assert 2 == result.exit_code
    assert "user 'ada': a sha256 password hash has 3 bytes; nothing was changed" in result.output
    assert [] == asked


def test_what_is_left_out_and_what_is_refused_are_named(folder: Path) -> None:
    content = {"vhosts": [{"name": "shop"}], "runtime": [{}, {}]}
    told = Imported(created=0, changed=0, exists=0, refused=["binding of 'q' to 'x' in '/': no"])
    with canned_node(folder, {"import_definitions": told}):
        result = run("import_definitions", typed=json.dumps(content))

    assert 6 == result.exit_code
    assert "leveret: left out: runtime (2)\n" in result.stderr
    assert "leveret: refused: binding of 'q' to 'x' in '/': no\n" in result.stderr
    assert "1 definitions were refused" in result.stderr
