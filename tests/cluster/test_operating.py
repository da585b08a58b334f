"""What an operator does to real nodes: asks them, stops them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pika
import pytest

from chaos.load import Publisher
from leveret.cli.ask import ask_once
from leveret.node.control.replies import ClusterStatus, NodeStatus, Rebalanced
from tests.cluster.conftest import Cluster
from tests.support import nodes
from tests.support.nodes import LeveretProcess

ELECTION_S = 3.0
"""Of the patient cluster: whoever waits for an election waits at least so long."""


def data_of(member: LeveretProcess) -> Path:
    return Path(member.arguments[member.arguments.index("--data-dir") + 1])


def status(member: LeveretProcess) -> NodeStatus:
    return ask_once(data_of(member), "status", NodeStatus)


def ctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "leveret.cli.main", "ctl", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.fixture
def patient_cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Three members that are slow to elect, so that one election would be noticed."""
    settings = (
        f"consensus.election_timeout_min_s={ELECTION_S}",
        f"consensus.election_timeout_max_s={ELECTION_S + 1}",
        "consensus.quorum_timeout_s=3",
    )
    cluster = Cluster(nodes.members(tmp_path, settings=settings))
    try:
        cluster.heal()
        yield cluster
    finally:
        cluster.kill_all()


def wait_for_spread_leaders(cluster: Cluster) -> None:
    """Wait until each node leads every third group, as they agree on after a start."""
    deadline_s = time.monotonic() + 30
    while [g.leader for g in status(cluster[0]).groups] != [g % 3 + 1 for g in range(9)]:
        assert time.monotonic() < deadline_s, "the leaders are not spread"
        time.sleep(0.1)


def test_ctl_shows_a_node_and_its_cluster(cluster: Cluster) -> None:
    folder = str(data_of(cluster[1]))

    one = ctl("status", "--data-dir", folder)
    assert 0 == one.returncode, one.stderr
    assert one.stdout.startswith("Node 2, node-2\n")

    shown = ctl("cluster", "status", "--data-dir", folder, "--json")
    assert 0 == shown.returncode, shown.stderr
    seen = json.loads(shown.stdout)
    assert [(1, True), (2, True), (3, True)] == [(n["node"], n["is_up"]) for n in seen["nodes"]]
    assert list(range(9)) == [group["group"] for group in seen["groups"]]


def test_a_node_that_waits_for_the_others_can_be_asked(cluster: Cluster) -> None:
    cluster.kill_all()
    cluster[0].launch()
    deadline_s = time.monotonic() + 15
    while 0 != (asked := ctl("status", "--data-dir", str(data_of(cluster[0])))).returncode:
        assert 5 == asked.returncode, asked.stderr
        assert time.monotonic() < deadline_s

    assert "starting" in asked.stdout
    seen = ask_once(data_of(cluster[0]), "cluster status", ClusterStatus)
    assert {None} == {group.leader for group in seen.groups}


def test_the_cluster_is_shown_without_a_node_that_was_killed(cluster: Cluster) -> None:
    cluster[2].kill()

    seen = ask_once(data_of(cluster[0]), "cluster status", ClusterStatus)
    while seen.nodes[2].is_up:  # its link is noticed to be broken at once, but not before
        seen = ask_once(data_of(cluster[0]), "cluster status", ClusterStatus)

    assert [True, True, False] == [node.is_up for node in seen.nodes]
    assert [] == seen.nodes[2].leads


def test_a_group_is_led_by_the_node_that_was_asked_to_until_a_rebalance(
    cluster: Cluster, name: str, publish: Callable[..., Publisher]
) -> None:
    with pika.BlockingConnection(pika.URLParameters(cluster.url(0))) as connection:
        connection.channel().queue_declare(name, durable=True)
    publisher = publish(cluster.url(1), name)
    wait_for_spread_leaders(cluster)
    asked = str(data_of(cluster[1]))  # neither the leader nor the one that is to lead

    moved = ctl("cluster", "transfer", "3", "node-3", "--data-dir", asked)
    assert "node 3 leads group 3; before it was node 1\n" == moved.stdout, moved.stderr
    stays_s = time.monotonic() + 5  # a node looks every 2 s whether it should lead
    while time.monotonic() < stays_s:
        assert status(cluster[2]).groups[3].role == "leader"
        time.sleep(0.5)

    back = ctl("cluster", "rebalance", "--data-dir", asked, "--json")
    assert 0 == back.returncode, back.stderr
    assert {
        "moved": [{"group": 3, "before": 3, "now": 1}],
        "failed": [],
        "leads": {"1": 3, "2": 3, "3": 3},
    } == json.loads(back.stdout)
    publisher.wait_confirmed(300)
    publisher.finish()


def test_what_a_dead_node_led_is_shared_out_by_a_rebalance(cluster: Cluster) -> None:
    wait_for_spread_leaders(cluster)
    cluster[0].kill()
    folder = data_of(cluster[1])
    deadline_s = time.monotonic() + 15
    while any(g.leader in {None, 1} for g in status(cluster[1]).groups):
        assert time.monotonic() < deadline_s
        time.sleep(0.1)

    done = ask_once(folder, "cluster rebalance", Rebalanced)

    assert [] == done.failed
    assert {2: 5, 3: 4} == done.leads


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("transfer", "77", "node-2"), "no group 77; there are 0 (the catalog) to 8"),
        (("transfer", "3", "node-9"), "no node 'node-9'; there are: node-1, node-2, node-3"),
        (("remove", "node-9", "--yes"), "no node 'node-9'; there are: node-1, node-2, node-3"),
        (("remove", "node-1", "--yes"), "node-1 would not see its own removal"),
    ],
)
def test_what_cannot_be_done_is_said_with_a_remedy(
    arguments: tuple[str, ...], text: str, cluster: Cluster
) -> None:
    done = ctl("cluster", *arguments, "--data-dir", str(data_of(cluster[0])))

    assert 6 == done.returncode
    assert text in done.stderr


def test_a_node_is_not_removed_when_those_that_remain_are_no_majority(cluster: Cluster) -> None:
    cluster[2].kill()
    while ask_once(data_of(cluster[0]), "cluster status", ClusterStatus).nodes[2].is_up:
        pass

    done = ctl("cluster", "remove", "node-2", "--yes", "--data-dir", str(data_of(cluster[0])))

    assert 6 == done.returncode
    assert "only 1 of the 2 nodes that would remain can be reached" in done.stderr
    assert 3 == len(ask_once(data_of(cluster[0]), "cluster status", ClusterStatus).nodes)


def test_a_node_that_is_removed_leaves_all_groups_and_stops_and_clients_go_on(
    tmp_path: Path, name: str, publish: Callable[..., Publisher]
) -> None:
    cluster = Cluster(nodes.members(tmp_path))
    try:
        cluster.heal()
        with pika.BlockingConnection(pika.URLParameters(cluster.url(0))) as connection:
            connection.channel().queue_declare(name, durable=True)
        publisher = publish(cluster.url(0), name)
        publisher.wait_confirmed(300)

        done = ctl("cluster", "remove", "3", "--yes", "--data-dir", str(data_of(cluster[0])))

        assert 0 == done.returncode, done.stderr
        assert "all groups are without node-3" in done.stdout
        publisher.wait_confirmed(len(publisher.confirmed) + 500)
        publisher.finish()
        assert 0 == cluster[2].wait_ended()
        seen = ask_once(data_of(cluster[1]), "cluster status", ClusterStatus)
        assert [1, 2] == [node.node for node in seen.nodes]
        assert {(1, 2)} == {tuple(group.voters) for group in seen.groups}
        assert 0 == cluster[1].stop()
        assert 0 == cluster[0].stop()
    finally:
        cluster.kill_all()


def test_a_node_alone_grows_to_two_by_the_command_that_it_gives(tmp_path: Path) -> None:
    first, second = (nodes.node(tmp_path, data=tmp_path / f"node-{n}") for n in (1, 2))
    try:
        first.start()
        alone = ctl("cluster", "add", "--data-dir", str(data_of(first)))
        assert 6 == alone.returncode
        assert "start it again with --peer-listen HOST:25672" in alone.stderr
        assert 0 == first.stop()

        first.arguments += ["--peer-listen", f"127.0.0.1:{nodes.free_port()}"]
        first.start()
        command = next(
            line.split()
            for line in ctl("cluster", "add", "--data-dir", str(data_of(first))).stdout.splitlines()
            if "--join" in line
        )
        second.arguments += command[command.index("--join") : command.index("--peer-listen")]
        second.arguments += ["--peer-listen", f"127.0.0.1:{nodes.free_port()}"]
        second.start()

        seen = ask_once(data_of(second), "cluster status", ClusterStatus)
        assert [(1, True), (2, True)] == [(node.node, node.is_up) for node in seen.nodes]
        assert {(1, 2)} == {tuple(group.voters) for group in seen.groups}
        tokens = {
            ctl("cluster", "token", "--data-dir", str(data_of(n))).stdout for n in (first, second)
        }
        assert [65] == [len(token) for token in tokens]
    finally:
        first.kill()
        second.kill()


def test_counts_are_those_of_what_clients_did(single: LeveretProcess) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(single.urls[0]))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare("counted", durable=True)
    for _ in range(7):
        channel.basic_publish("", "counted", b"x")
    taken = [channel.basic_get("counted")[0] for _ in range(3)]
    channel.basic_ack(taken[0].delivery_tag)
    channel.queue_declare("counted", passive=True)  # so that the ack has been handled

    seen = status(single)

    totals = seen.totals
    assert (7, 7, 3, 1) == (
        totals.published,
        totals.confirmed,
        totals.delivered,
        totals.settled,
    )
    assert (1, 1, 2) == (seen.connections, seen.queues, seen.messages_unacked)
    assert 7 - 3 <= seen.messages_ready <= 7 - 2
    connection.close()


def test_a_node_that_is_stopped_costs_clients_of_other_nodes_no_election(
    patient_cluster: Cluster, name: str, publish: Callable[..., Publisher]
) -> None:
    cluster = patient_cluster
    with pika.BlockingConnection(pika.URLParameters(cluster.url(0))) as connection:
        connection.channel().queue_declare(name, durable=True)
    wait_for_spread_leaders(cluster)
    quiet = {g.group: g.commit_index for g in status(cluster[0]).groups}
    with pika.BlockingConnection(pika.URLParameters(cluster.url(0))) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish("", name, b"x")
    busy = max(status(cluster[0]).groups, key=lambda g: g.commit_index - quiet[g.group])
    assert busy.leader is not None
    stopped = busy.leader - 1
    before = status(cluster[stopped + 1]).groups
    publisher = publish(cluster.url(stopped + 1), name)
    publisher.wait_confirmed(300)

    assert 0 == cluster[stopped].stop()

    publisher.wait_confirmed(len(publisher.confirmed) + 500)
    publisher.finish()
    print(f"no confirm for {publisher.gap_s:.2f} s while the leader stopped")
    # One term more for each group that was handed over, and none because the node is gone.
    expected = {g.group: g.term + (g.leader == stopped + 1) for g in before}
    for place in (stopped + 1, stopped + 2):
        groups = status(cluster[place]).groups
        assert expected == {g.group: g.term for g in groups}
        assert all(g.leader not in {None, stopped + 1} for g in groups)
    assert publisher.gap_s < ELECTION_S
