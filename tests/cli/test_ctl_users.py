"""`leveret ctl`: what the verbs about users and virtual hosts ask for and print."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from leveret.cli.main import cli
from leveret.node.control.changes import Outcome
from leveret.node.control.controls import ControlError
from leveret.node.control.limits import UserLimitsSeen
from leveret.node.control.topic_permissions import TopicPermissionSeen
from leveret.node.control.users import PermissionSeen, UserSeen
from leveret.node.control.virtual_hosts import VirtualHostSeen
from tests.cli.canned_node import canned_node, recording_node

CREATED = Outcome(outcome="created")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / ".leveret/node-1"


def run(*arguments: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(cli, ["ctl", *arguments], input=typed, prog_name="leveret")


@pytest.mark.parametrize("verb", ["add_user", "change_password", "authenticate_user"])
def test_a_password_is_an_argument_or_the_first_line_that_is_piped_in(
    verb: str, folder: Path
) -> None:
    with recording_node(folder, {verb: CREATED}) as asked:
        assert 0 == run(verb, "ada", "analytical").exit_code
        assert 0 == run(verb, "ada", typed="analytical\n").exit_code

    assert [{"do": verb, "user": "ada", "password": "analytical"}] * 2 == asked


def test_who_adds_a_user_is_told_how_to_let_it_in(folder: Path) -> None:
    with canned_node(folder, {"add_user": CREATED}):
        assert "leveret ctl set_permissions -p / ada" in run("add_user", "ada", "pw").output


def test_permissions_are_asked_for_in_rabbitmqs_order(folder: Path) -> None:
    with recording_node(folder, {"set_permissions": Outcome(outcome="changed")}) as asked:
        assert 0 == run("set_permissions", "-p", "shop", "ada", "c", "w", "r").exit_code
        assert 0 == run("set_permissions", "ada", "c", "w", "").exit_code

    assert [("shop", "ada", "c", "w", "r"), ("/", "ada", "c", "w", "")] == [
        tuple(one[key] for key in ("vhost", "user", "configure", "write", "read")) for one in asked
    ]


def test_tags_are_given_one_by_one_and_none_takes_all(folder: Path) -> None:
    with recording_node(folder, {"set_user_tags": Outcome(outcome="changed")}) as asked:
        run("set_user_tags", "ada", "administrator", "monitoring")
        run("set_user_tags", "ada")

    assert [["administrator", "monitoring"], []] == [one["tags"] for one in asked]


def test_lists_are_tables_lines_or_json(folder: Path) -> None:
    users = [
        UserSeen(user="ada", tags=["administrator", "monitoring"]),
        UserSeen(user="[bold]till", tags=[]),
    ]
    with canned_node(folder, {"list_users": users}):
        table = run("list_users").output
        lines = run("list_users", "-q").output
        rows = json.loads(run("list_users", "--json").output)

    assert re.search(r"user +tags\s+─+\s+ada +\[administrator, monitoring\]", table)
    assert "[bold]till" in table
    assert "ada\t[administrator, monitoring]\n[bold]till\t[]\n" == lines
    assert [
        {"user": "ada", "tags": ["administrator", "monitoring"]},
        {"user": "[bold]till", "tags": []},
    ] == rows


def test_a_tab_or_an_end_of_line_in_a_name_does_not_break_lines(folder: Path) -> None:
    with canned_node(folder, {"list_users": [UserSeen(user="a\tb\nc\\", tags=[])]}):
        assert "a\\tb\\nc\\\\\t[]\n" == run("list_users", "-q").output


def test_permissions_are_listed_in_rabbitmqs_columns(folder: Path) -> None:
    seen = [PermissionSeen(user="ada", vhost="shop", configure="c", write="w", read="")]
    answers = {"list_permissions": seen, "list_user_permissions": seen}
    with canned_node(folder, answers):
        assert "ada\tc\tw\t\n" == run("list_permissions", "-p", "shop", "-q").output
        assert "shop\tc\tw\t\n" == run("list_user_permissions", "ada", "-q").output


def test_topic_permissions_are_asked_for_and_listed_in_rabbitmqs_order(folder: Path) -> None:
    seen = [TopicPermissionSeen(user="ada", vhost="shop", exchange="x", write="w", read="")]
    answers = {
        "set_topic_permissions": Outcome(outcome="changed"),
        "clear_topic_permissions": Outcome(outcome="deleted"),
        "list_topic_permissions": seen,
        "list_user_topic_permissions": seen,
    }
    with recording_node(folder, answers) as asked:
        assert 0 == run("set_topic_permissions", "-p", "shop", "ada", "x", "w", "r").exit_code
        assert 0 == run("clear_topic_permissions", "-p", "shop", "ada").exit_code
        assert "ada\tx\tw\t\n" == run("list_topic_permissions", "-p", "shop", "-q").output
        assert "shop\tx\tw\t\n" == run("list_user_topic_permissions", "ada", "-q").output

    user = {"user": "ada", "vhost": "shop"}
    assert {"do": "set_topic_permissions", "exchange": "x", "write": "w", "read": "r"} == {
        key: value for key, value in asked[0].items() if key not in user
    }
    assert {"do": "clear_topic_permissions", **user, "exchange": None} == asked[1]


def test_limits_are_json_and_listed_as_json(folder: Path) -> None:
    answers = {
        "set_vhost_limits": Outcome(outcome="changed"),
        "list_user_limits": [UserLimitsSeen(user="ada", limits={"max-channels": 3})],
    }
    with recording_node(folder, answers) as asked:
        assert 0 == run("set_vhost_limits", "-p", "shop", '{"max-queues": 5}').exit_code
        assert 2 == run("set_vhost_limits", "-p", "shop", "max-queues=5").exit_code
        assert 2 == run("set_vhost_limits", "-p", "shop", '{"max-queues": "5"}').exit_code
        assert 'ada\t{"max-channels": 3}\n' == run("list_user_limits", "-q").output

    assert {"do": "set_vhost_limits", "vhost": "shop", "limits": {"max-queues": 5}} == asked[0]


def test_what_no_option_says_of_a_virtual_host_stays(folder: Path) -> None:
    changed = Outcome(outcome="changed")
    with recording_node(folder, {"update_vhost_metadata": changed}) as asked:
        assert 0 == run("update_vhost_metadata", "shop", "--tags", "eu, sales").exit_code

    assert ["eu", "sales"] == asked[0]["tags"]
    assert asked[0]["description"] is None
    assert asked[0]["default_queue_type"] is None


def test_virtual_hosts_have_columns_to_choose(folder: Path) -> None:
    seen = [VirtualHostSeen(name="/", exchanges=7, queues=2)]
    with canned_node(folder, {"list_vhosts": seen}):
        assert "/\n" == run("list_vhosts", "-q").output
        assert "2\t/\n" == run("list_vhosts", "queues", "name", "-q").output
        assert 2 == run("list_vhosts", "colour").exit_code


def test_a_virtual_host_that_is_there_is_no_error(folder: Path) -> None:
    with canned_node(folder, {"add_vhost": Outcome(outcome="exists")}):
        result = run("add_vhost", "shop")

    assert (0, 'virtual host "shop" is there already\n') == (result.exit_code, result.output)


def test_quiet_changes_print_nothing_and_json_ones_their_outcome(folder: Path) -> None:
    with canned_node(folder, {"delete_user": Outcome(outcome="deleted")}):
        assert "" == run("delete_user", "ada", "-q").output
        assert {"outcome": "deleted"} == json.loads(run("delete_user", "ada", "--json").output)


def test_a_wrong_password_ends_with_exit_code_6(folder: Path) -> None:
    refusal = ControlError("refused", 'user "ada" does not exist, or has another password')
    with canned_node(folder, {"authenticate_user": refusal}):
        assert 6 == run("authenticate_user", "ada", "wrong").exit_code
