"""`leveret cluster`: processes that start, die, come back and stop. The nodes inside are small."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from leveret.cli.exits import BadConfiguration
from leveret.cli.local import LocalNode, State, prepare_folder
from leveret.cli.screen import Row, Screen
from leveret.node.control.replies import Rates
from leveret.node.sources import load_config
from leveret.transport.identity import Address
from tests.cli.canned_node import group_here, node_status
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


def shown(rows: list[Row], *, width: int) -> str:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    footer = ["every group has a leader"]
    screen = Screen(has_table=True, rows=lambda: rows, footer=lambda: footer, console=console)
    with screen:
        screen.refresh()
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def up(number: int, **fields: object) -> Row:
    node = LocalNode(number, Address("127.0.0.1", 5671 + number), Path("log"), state=State.UP)
    return Row(node, node_status(node=number, **fields), 0)


DEAD = Row(
    LocalNode(2, Address("127.0.0.1", 5673), Path("node-2.log"), ending="killed by SIGKILL"),
    None,
    1234,
)


def test_the_table_shows_what_each_node_does() -> None:
    groups = [group_here("leader", term=3), group_here("follower", term=7)]
    text = shown([up(1, groups=groups), DEAD], width=130)

    assert re.search(r"node-1 .*127\.0\.0\.1:5672 +up +1 +3-7 +0 +3 +12\.3k +4 +3 +2 ", text)
    assert re.search(r"node-2 .*127\.0\.0\.1:5673 +down +1,234 .*killed by SIGKILL", text)
    assert "every group has a leader" in text


def test_a_node_that_is_up_and_does_not_answer_is_silent() -> None:
    assert re.search(r"node-1 .*silent", shown([up(1)._replace(status=None)], width=130))


def test_the_table_fits_into_eighty_columns_with_large_numbers() -> None:
    much = {
        "connections": 9_999,
        "messages_ready": 123_456_789,
        "rates": Rates(published=99_999, confirmed=99_999, delivered=99_999, settled=0),
        "groups": [group_here("leader", term=998), group_here("leader", term=999)],
    }
    row = up(15, **much)._replace(lag=99_999)

    lines = [line.rstrip() for line in shown([row], width=80).splitlines()]

    line = next(line for line in lines if "node-15" in line)
    assert len(line) <= 80
    assert "…" not in line
    assert line.endswith(" 123M  100k   100k   100k")


def test_keys_work_at_once_on_a_terminal(tmp_path: Path) -> None:
    code = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
    cluster = [sys.executable, str(PROGRAM), str(free_ports(2)), str(tmp_path / "data")]
    with subprocess.Popen(
        [sys.executable, "-c", code, *cluster], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as terminal:
        assert terminal.stdin is not None
        assert terminal.stdout is not None

        def read_until(text: bytes) -> None:
            assert terminal.stdout is not None
            read = b""
            while text not in read:
                chunk = os.read(terminal.stdout.fileno(), 4096)
                assert chunk, f"ended before {text!r}: {read!r}"
                read += chunk

        def press(key: bytes) -> None:
            assert terminal.stdin is not None
            terminal.stdin.write(key)
            terminal.stdin.flush()

        read_until(b"to see a node die")
        press(b"k")
        read_until(b"killed by SIGKILL")
        press(b"r")
        read_until(b" up on ")
        press(b"q")
        read_until(b"all nodes stopped")
        with contextlib.suppress(BrokenPipeError):
            terminal.stdin.close()
        assert 0 == terminal.wait(10)
