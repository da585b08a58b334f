"""The command's help, and `leveret config`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from leveret.cli.config import reference_page
from leveret.cli.main import COMMANDS, cli
from leveret.node.config import SETTINGS
from leveret.node.version import version


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, prog_name="leveret")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_version_is_that_of_the_distribution() -> None:
    assert run("--version").output == f"leveret, version {version()}\n"


def test_the_help_names_every_command_in_its_group_with_examples() -> None:
    text = run("--help").output

    for title, group in COMMANDS.items():
        assert f"{title}:\n" in text
        assert all(f"\n  {name} " in text for name in group)
    assert "leveret cluster --demo" in text


@pytest.mark.parametrize("command", ["node", "cluster"])
def test_a_commands_help_has_examples_and_exit_codes_on_lines_of_their_own(command: str) -> None:
    result = run(command, "--help")

    assert result.exit_code == 0
    assert f"\n    leveret {command} " in result.output
    assert "\n  Exit codes:" in result.output
    assert "\\b" not in result.output


def test_show_prints_every_value_with_origin_and_description() -> None:
    result = run("config", "show", "--set", "amqp.heartbeat_s=30s")

    assert "amqp.heartbeat_s = 30s  (flag --set)\n    Heartbeat proposed" in result.output
    assert all(f"{name} = " in result.output for name in SETTINGS)


def test_show_as_json_has_the_same() -> None:
    (Path.cwd() / "leveret.toml").write_text('[storage]\nsegment_bytes = "1MiB"\n')

    values = {
        row["name"]: row for row in json.loads(run("config", "show", "--json").output)["values"]
    }

    assert list(SETTINGS) == list(values)
    assert values["storage.segment_bytes"]["value"] == "1MiB"
    assert values["storage.segment_bytes"]["origin"] == f"file {Path.cwd() / 'leveret.toml'}"


def test_a_wrong_configuration_ends_with_code_2_and_all_problems_and_no_stack() -> None:
    result = run("config", "show", "--set", "amqp.frame_max=1", "--set", "a.b=1")

    assert result.exit_code == 2
    assert "2 problems in the configuration:" in result.output
    assert "amqp.frame_max = '1' (flag --set): must be at least 4KiB" in result.output
    assert "Traceback" not in result.output


def test_the_reference_has_a_row_for_every_setting_with_its_default() -> None:
    page = reference_page()

    for name, described in SETTINGS.items():
        (row,) = [
            line
            for line in page.splitlines()
            if line.startswith(f"| `{name.partition('.')[2]}` |") and described.about in line
        ]
        assert described.shown_default in row
        assert described.at_limit in row
        assert row.count("|") == 6


def test_help_does_not_load_the_broker() -> None:
    program = (
        "import sys; from leveret.cli.main import cli; cli(['--help'], standalone_mode=False);"
        " print('trio' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert result.stdout.endswith("False\n")
