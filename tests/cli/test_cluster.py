"""`leveret cluster`: processes that start, die, come back and stop. The nodes inside are small."""

from __future__ import annotations

import io
import os
import re
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from leveret.cli.exits import BadConfiguration
from leveret.cli.local import LocalNode, State, prepare_folder
from leveret.cli.screen import Screen
from leveret.node.sources import load_config
from leveret.transport.identity import Address
from tests.support.nodes import answers_amqp, free_ports
from tests.support.programs import Program

PROGRAM = Path(__file__).with_name("fake_cluster.py")


def start(folder: Path, port: int, *flags: str) -> Program:
    return Program([sys.executable, PROGRAM, str(port), folder / "data", *flags])


def pid_in(line: str) -> int:
    found = re.search(r"process (\d+)", line)
    assert found is not None
    return int(found[1])


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_all_nodes_answer_when_the_cluster_is_ready_and_none_is_left_when_it_stops(
    tmp_path: Path,
) -> None:
    port = free_ports(2)
    with start(tmp_path, port) as cluster:
        pids = [pid_in(cluster.wait_for(" starting (")) for _ in range(2)]
        cluster.wait_for("A Leveret cluster of 2 nodes is ready")

        assert answers_amqp(port)
        assert answers_amqp(port + 1)
        assert cluster.interrupt(signal.SIGTERM) == 0

    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_a_killed_node_is_shown_and_comes_back_when_restarts_were_asked_for(
    tmp_path: Path,
) -> None:
    with start(tmp_path, free_ports(2), "--restart") as cluster:
        pid = pid_in(cluster.wait_for("node-1 starting"))
        cluster.wait_for("is ready")

        os.kill(pid, signal.SIGKILL)

        cluster.wait_for("node-1 down (killed by SIGKILL)")
        assert pid_in(cluster.wait_for("node-1 starting")) != pid
        cluster.wait_for("node-1 up")


def test_nodes_end_with_a_cluster_that_is_killed(tmp_path: Path) -> None:
    with start(tmp_path, free_ports(2)) as cluster:
        pids = [pid_in(cluster.wait_for(" starting (")) for _ in range(2)]
        cluster.wait_for("is ready")

        cluster.interrupt(signal.SIGKILL)

    for pid in pids:
        wait_until_gone(pid)


def test_a_node_that_cannot_start_ends_all_with_its_code_and_its_last_words(
    tmp_path: Path,
) -> None:
    port = free_ports(2)
    with socket.create_server(("127.0.0.1", port + 1)), start(tmp_path, port) as cluster:
        assert cluster.end() == 3

    assert "node-2 ended with code 3" in "".join(cluster.lines)
    assert "address already in use" in cluster.lines[-1]


def test_a_folder_of_another_size_is_refused(tmp_path: Path) -> None:
    prepare_folder(tmp_path, nodes=3, base_port=5672, is_fresh=False)

    with pytest.raises(BadConfiguration, match="use --nodes 3"):
        prepare_folder(tmp_path, nodes=5, base_port=5672, is_fresh=False)


def test_fresh_deletes_the_clusters_data_and_nothing_else(tmp_path: Path) -> None:
    prepare_folder(tmp_path, nodes=3, base_port=5672, is_fresh=False)
    (tmp_path / "node-1" / "journal").mkdir(parents=True)
    (tmp_path / "node-1.log").write_text("old")
    (tmp_path / "mine").write_text("keep")
    token = (tmp_path / "token").read_text()

    prepare_folder(tmp_path, nodes=5, base_port=5672, is_fresh=True)

    assert {path.name for path in tmp_path.iterdir()} == {"cluster.toml", "token", "mine"}
    assert (tmp_path / "token").read_text() != token


def test_fresh_leaves_a_folder_that_is_not_a_clusters_alone(tmp_path: Path) -> None:
    (tmp_path / "node-1").mkdir()

    with pytest.raises(BadConfiguration, match="choose another"):
        prepare_folder(tmp_path, nodes=3, base_port=5672, is_fresh=True)

    assert (tmp_path / "node-1").is_dir()


def test_a_second_start_keeps_the_token(tmp_path: Path) -> None:
    prepare_folder(tmp_path, nodes=3, base_port=5672, is_fresh=False)
    token = (tmp_path / "token").read_text()

    prepare_folder(tmp_path, nodes=3, base_port=6672, is_fresh=False)

    assert (tmp_path / "token").read_text() == token


@pytest.mark.parametrize(("base_port", "peer_port"), [(5672, 25672), (60000, 40000)])
def test_the_written_configuration_is_valid_for_each_node(
    tmp_path: Path, base_port: int, peer_port: int
) -> None:
    prepare_folder(tmp_path, nodes=3, base_port=base_port, is_fresh=False)

    config = load_config(
        folder=tmp_path,
        environment={"LEVERET_NODE_ID": "3"},
        file=tmp_path / "cluster.toml",
    )

    assert config.peers.listen == Address("127.0.0.1", peer_port + 2)
    assert len(config.node.token) == 32


def test_the_table_shows_each_node_with_its_state() -> None:
    nodes = [
        LocalNode(1, Address("127.0.0.1", 5672), Path("node-1.log"), state=State.UP),
        LocalNode(2, Address("127.0.0.1", 5673), Path("node-2.log"), ending="killed by SIGKILL"),
    ]
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    screen = Screen(
        has_table=True, nodes=lambda: nodes, footer=lambda: ["published 7"], console=console
    )

    with screen:
        screen.refresh()

    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert re.search(r"node-1 .*127\.0\.0\.1:5672 .*up", text)
    assert re.search(r"node-2 .*down .*killed by SIGKILL", text)
    assert "published 7" in text
