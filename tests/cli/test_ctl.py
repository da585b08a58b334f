"""`leveret ctl`: which node it asks, what it prints, how it ends."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from leveret.cli.ctl import ctl
from leveret.cli.figures import bytes_text, duration_text, rate_text
from leveret.cli.find import find_node
from leveret.cli.main import cli
from leveret.node.control.controls import ControlError
from leveret.node.control.replies import (
    ClusterStatus,
    GroupSeen,
    JoinGuide,
    MemberSeen,
    Moved,
    NotMoved,
    Rebalanced,
    Removed,
    Token,
    Transferred,
)
from tests.cli.canned_node import canned_node, cluster_status, node_status


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["ctl", *arguments], prog_name="leveret")


def verbs(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name, command in group.commands.items():
        found.append((*path, name))
        if isinstance(command, click.Group):
            found += verbs(command, (*path, name))
    return found


def test_status_shows_the_node_that_runs_alone(tmp_path: Path) -> None:
    with canned_node(tmp_path / ".leveret/node-1", {"status": node_status()}):
        result = run("status")

    assert (0, "Node 1, node-1") == (result.exit_code, result.output.splitlines()[0])
    assert re.search(r"ready here +12,345 messages", result.output)
    assert re.search(r"process +4711, up 2 min 5 s", result.output)
    assert re.search(r"published +4\.0/s, 10 since the start", result.output)


def test_an_alarm_is_shown(tmp_path: Path) -> None:
    status = node_status(alarms=["low on disk on node 2"])
    with canned_node(tmp_path / ".leveret/node-1", {"status": status}):
        assert re.search(r"alarms +low on disk on node 2", run("status").output)


def test_json_has_everything_and_nothing_else(tmp_path: Path) -> None:
    with canned_node(tmp_path / ".leveret/node-1", {"status": node_status()}):
        status = json.loads(run("status", "--json").output)

    assert {"published": 10, "confirmed": 9, "delivered": 8, "settled": 7} == status["totals"]


def test_the_cluster_is_shown_with_who_is_down_who_is_behind_and_who_leads(
    tmp_path: Path,
) -> None:
    with canned_node(tmp_path / ".leveret/node-1", {"cluster status": cluster_status()}):
        text = run("cluster", "status").output

    assert "Cluster hares, as node 1 sees it" in text
    assert re.search(r"1 +node-1 +serving +0 +amqp://127\.0\.0\.1:5672", text)
    assert re.search(r"2 +node-2 +starting +none", text)
    assert re.search(r"3 +node-3 +down +none", text)
    assert re.search(r"0 \(catalog\) +1 +4 +100 .*1, 2 -2, 3 -40 \?", text)
    assert re.search(r"1 +none +2 +5 ", text)


def test_a_refusal_ends_with_its_text_and_remedy(tmp_path: Path) -> None:
    refusal = ControlError("refused", "not that one", remedy="take another")
    with canned_node(tmp_path / ".leveret/node-1", {"status": refusal}):
        result = run("status")

    assert (6, "leveret: not that one; take another\n") == (result.exit_code, result.output)


def test_a_node_of_another_version_that_does_not_know_a_verb_says_so(tmp_path: Path) -> None:
    with canned_node(tmp_path / ".leveret/node-1", {"status": node_status()}):
        result = run("cluster", "status")

    assert 70 == result.exit_code
    assert "another version may do more" in result.output


def test_without_a_running_node_it_says_how_to_start_one() -> None:
    result = run("status")

    assert 5 == result.exit_code
    assert "start one with `leveret node`" in result.output


def test_a_folder_in_which_no_node_runs_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    result = run("status", "--data-dir", "data")

    assert 5 == result.exit_code
    assert f"leveret node --data-dir {tmp_path / 'data'}" in result.output


def test_a_killed_nodes_socket_counts_as_no_node(tmp_path: Path) -> None:
    folder = tmp_path / ".leveret/node-1"
    folder.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(folder / "control.sock"))

    result = run("status")

    assert 5 == result.exit_code
    assert "no running node" in result.output


def test_of_several_nodes_one_must_be_chosen_by_name_number_or_folder(tmp_path: Path) -> None:
    cluster = tmp_path / ".leveret/cluster"
    one, two = node_status(), node_status(node=2, name="node-2")
    with (
        canned_node(cluster / "node-1", {"status": one}),
        canned_node(cluster / "node-2", {"status": two}),
    ):
        unclear = run("status")
        assert 5 == unclear.exit_code
        assert "2 nodes run here: .leveret/cluster/node-1, .leveret/cluster/node-2" in (
            unclear.output
        )
        for choice in (["--node", "node-2"], ["--node", "2"]):
            assert "Node 2, node-2" in run("status", *choice).output
        assert "Node 2" in run("status", "--data-dir", str(cluster / "node-2")).output


def test_any_node_of_a_local_cluster_answers_for_the_cluster(tmp_path: Path) -> None:
    cluster = tmp_path / ".leveret/cluster"
    with (
        canned_node(cluster / "node-1", {"cluster status": cluster_status()}),
        canned_node(cluster / "node-2", {"cluster status": cluster_status()}),
    ):
        assert "Cluster hares" in run("cluster", "status").output


def test_a_node_and_a_cluster_that_run_side_by_side_are_not_confused(tmp_path: Path) -> None:
    answers = {"cluster status": cluster_status()}
    with (
        canned_node(tmp_path / ".leveret/cluster/node-1", answers),
        canned_node(tmp_path / ".leveret/node-1", answers),
    ):
        assert 5 == run("cluster", "status").exit_code
        # The cluster's node goes before one alone of the same name.
        assert tmp_path / ".leveret/cluster/node-1" == find_node(None, "node-1")


def group(number: int, *members: int) -> GroupSeen:
    return GroupSeen(
        group=number,
        leader=members[0],
        term=1,
        commit_index=1,
        applied_index=1,
        last_index=1,
        members=[
            MemberSeen(node=node, is_voter=True, role="follower", applied_index=1, lag=0)
            for node in members
        ],
    )


def groups(*seen: GroupSeen) -> ClusterStatus:
    return ClusterStatus(cluster="hares", asked=1, nodes=[], groups=list(seen))


def test_a_removal_is_followed_until_no_group_has_the_node(tmp_path: Path) -> None:
    stages = [
        groups(group(0, 1, 2, 3), group(1, 1, 2, 3)),
        groups(group(0, 1, 2), group(1, 1, 2, 3)),
        groups(group(0, 1, 2), group(1, 1, 2)),
    ]
    answers = {"cluster remove": Removed(node=3, name="node-3"), "cluster status": iter(stages)}
    with canned_node(tmp_path / ".leveret/node-1", answers):
        result = run("cluster", "remove", "node-3", "--yes")

    assert 0 == result.exit_code
    assert [
        "node-3 belongs to the cluster no more",
        "  still in groups 0 1",
        "  still in groups 1",
        "all groups are without node-3",
    ] == result.output.splitlines()


def test_a_removal_asks_first(tmp_path: Path) -> None:
    with canned_node(tmp_path / ".leveret/node-1", {}):
        result = CliRunner().invoke(cli, ["ctl", "cluster", "remove", "node-3"], input="n\n")

    assert 1 == result.exit_code
    assert "Remove node-3 for ever?" in result.output


@pytest.mark.parametrize(
    ("before", "text"),
    [
        (1, "node 2 leads group 3; before it was node 1\n"),
        (2, "node 2 leads group 3 already\n"),
    ],
)
def test_a_transfer_says_what_it_did(before: int, text: str, tmp_path: Path) -> None:
    reply = Transferred(group=3, before=before, now=2)
    with canned_node(tmp_path / ".leveret/node-1", {"cluster transfer": reply}):
        assert text == run("cluster", "transfer", "3", "node-2").output


def test_a_rebalance_that_could_not_move_all_says_so_and_fails(tmp_path: Path) -> None:
    reply = Rebalanced(
        moved=[Moved(group=3, before=2, now=1)],
        failed=[NotMoved(group=4, text="it has no leader now")],
        leads={1: 3, 2: 2},
    )
    with canned_node(tmp_path / ".leveret/node-1", {"cluster rebalance": reply}):
        result = run("cluster", "rebalance")

    assert 6 == result.exit_code
    assert "group 3: node 2 -> node 1" in result.output
    assert "group 4: it has no leader now" in result.output
    assert "groups led: node 1 3, node 2 2" in result.output


@pytest.mark.parametrize("name", ["", "..", "a/b"])
def test_a_name_that_is_a_path_is_refused(name: str) -> None:
    result = run("status", "--node", name)

    assert 2 == result.exit_code
    assert "--data-dir" in result.output


@pytest.mark.parametrize("verb", [(), *verbs(ctl)], ids=" ".join)
def test_each_verbs_help_has_examples(verb: tuple[str, ...]) -> None:
    result = run(*verb, "--help")

    assert 0 == result.exit_code
    assert "Examples:\n" in result.output
    assert f"leveret ctl {' '.join(verb)}".rstrip() in result.output.partition("Examples:")[2]


def test_figures_are_for_people() -> None:
    assert ["0 B", "999 B", "1.0 kB", "83.7 GB"] == [
        bytes_text(size) for size in (0, 999, 1000, 83_700_000_000)
    ]
    assert ["12 s", "5 min 12 s", "3 h 0 min", "2 d 1 h"] == [
        duration_text(seconds) for seconds in (12.9, 312, 10_800, 176_400)
    ]
    assert ["0/s", "0.5/s", "12/s", "1,235/s"] == [
        rate_text(rate) for rate in (0, 0.5, 12.3, 1234.6)
    ]


def test_the_command_for_another_machine_leaves_open_its_own_address_only(tmp_path: Path) -> None:
    guide = JoinGuide(cluster="hares", address="192.0.2.1:25672", token="ab" * 32, is_local=False)
    with canned_node(tmp_path / ".leveret/node-1", {"cluster add": guide}):
        text = run("cluster", "add").output

    assert (
        f"  leveret node --join 192.0.2.1:25672 --token {'ab' * 32} --peer-listen HOST:25672\n"
        in text
    )


def test_a_node_on_loopback_says_how_others_could_reach_it(tmp_path: Path) -> None:
    guide = JoinGuide(cluster="hares", address="127.0.0.1:25672", token="ab" * 32, is_local=True)
    with canned_node(tmp_path / ".leveret/node-1", {"cluster add": guide}):
        text = run("cluster", "add").output

    assert "--peer-listen 127.0.0.1:25680 --listen 127.0.0.1:5680" in text
    assert "Other machines do not reach 127.0.0.1:25672." in text


def test_the_token_is_printed_alone_for_a_file(tmp_path: Path) -> None:
    with canned_node(tmp_path / ".leveret/node-1", {"cluster token": Token(token="ab" * 32)}):
        assert f"{'ab' * 32}\n" == run("cluster", "token").output
