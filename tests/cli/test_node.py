"""`leveret node` as a process: how it greets, stops and fails. The broker inside is small."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.support.nodes import answers_amqp, free_port
from tests.support.programs import Program

PROGRAM = Path(__file__).with_name("fake_node.py")


def start(folder: Path, *flags: str, behaviour: str = "", port: int = 0) -> Program:
    return Program(
        [sys.executable, PROGRAM, "node", "--listen", f"127.0.0.1:{port}", *flags],
        cwd=folder,
        environment={**os.environ, "FAKE_NODE": behaviour},
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_node_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    with start(tmp_path) as node:
        node.wait_for("is ready")

        assert node.interrupt(number) == 0


def test_a_node_tells_where_it_listens_and_how_to_connect(tmp_path: Path) -> None:
    port = free_port()

    with start(tmp_path, port=port) as node:
        node.wait_for("is ready")
        node.wait_for(f"data     {tmp_path}/.leveret/node-1")
        node.wait_for(f"amqp://guest:guest@127.0.0.1:{port}/")
        node.wait_for("import pika")
        node.wait_for("loopback")
        node.wait_for("Ctrl-C")

        assert answers_amqp(port)


def test_a_second_signal_ends_a_node_that_does_not_stop_at_once(tmp_path: Path) -> None:
    with start(tmp_path, behaviour="stubborn") as node:
        node.wait_for("Ctrl-C")
        node._process.send_signal(signal.SIGTERM)
        node.wait_for("stubborn")

        assert node.interrupt(signal.SIGTERM) == 128 + signal.SIGTERM


def test_a_node_with_a_stuck_loop_is_ended_at_its_deadline(tmp_path: Path) -> None:
    with start(tmp_path, "--set", "node.stop_timeout_s=0.1", behaviour="stuck") as node:
        node.wait_for("Ctrl-C")

        assert node.interrupt(signal.SIGTERM) == 70
        assert "not stopped within 1.1 s" in node.lines[-1]


def test_a_port_in_use_is_told_with_a_way_out(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with start(tmp_path, port=port) as node:
            assert node.end() == 3

    assert node.lines == [
        (
            f"leveret: address already in use: 127.0.0.1:{port}; another node or RabbitMQ? try"
            " --listen 127.0.0.1:5673"
        )
    ]


def test_a_folder_is_for_one_node(tmp_path: Path) -> None:
    with start(tmp_path) as first:
        first.wait_for("is ready")
        with start(tmp_path) as second:
            assert second.end() == 4

        assert f"in use by process {first._process.pid}" in second.lines[-1]


@pytest.mark.parametrize(
    ("behaviour", "code", "text"),
    [
        ("corrupt", 4, "is damaged: journal/00000001, offset 4711"),
        ("bug", 70, "internal failure"),
    ],
)
def test_the_exit_code_tells_what_failed(
    tmp_path: Path, behaviour: str, code: int, text: str
) -> None:
    with start(tmp_path, behaviour=behaviour) as node:
        assert node.end() == code

    assert text in node.lines[-1]


def test_a_bug_is_logged_with_its_stack(tmp_path: Path) -> None:
    with start(tmp_path, behaviour="bug") as node:
        node.end()

    assert [line for line in node.lines if "ZeroDivisionError: nobody expected this" in line]


def test_a_wrong_flag_ends_with_code_2_before_anything_is_made(tmp_path: Path) -> None:
    with start(tmp_path, "--id", "none") as node:
        assert node.end() == 2

    assert "node.id = 'none' (flag --id): expected a whole number" in node.lines[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_node_with_json_logs_prints_no_greeting(tmp_path: Path) -> None:
    port = free_port()
    with start(tmp_path, "--log-format", "json", port=port) as node:
        while not answers_amqp(port):
            assert node._process.poll() is None

        assert node.interrupt(signal.SIGTERM) == 0

    assert not [line for line in node.lines if line and not line.startswith("{")]
