"""Processes are found by the port that they listen on, and what they used is counted."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from leveret.perf.processes import Processes, is_local

pytestmark = pytest.mark.skipif(
    not Path("/proc/net/tcp").exists(), reason="there is no /proc on this system"
)


def test_the_process_that_listens_on_a_port_is_found_with_what_it_uses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        processes = Processes([("127.0.0.1", listener.getsockname()[1])])

        assert [os.getpid()] == processes.pids
        usage = processes.usage()
        assert usage is not None
        assert usage.memory_bytes > 1_000_000
        assert usage.cpu_s >= 0


def test_of_a_port_that_nobody_listens_on_or_another_machine_nothing_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        elsewhere = Processes([("192.0.2.1", port)])
    silent = Processes([("127.0.0.1", port)])

    assert ([], None) == (silent.pids, silent.usage())
    assert ([], None) == (elsewhere.pids, elsewhere.usage())


@pytest.mark.parametrize(
    ("host", "expected"), [("localhost", True), ("127.0.0.1", True), ("192.0.2.1", False)]
)
def test_a_host_is_local_if_one_can_listen_there(host: str, expected: bool) -> None:
    assert expected == is_local(host)


def fake_process(proc: Path, pid: int, *, cpu_ticks: int, listens: bool = True) -> None:
    folder = proc / str(pid)
    (folder / "fd").mkdir(parents=True, exist_ok=True)
    link = folder / "fd" / "3"
    link.unlink(missing_ok=True)
    link.symlink_to(f"socket:[{pid * 10}]")
    (folder / "stat").write_text(f"{pid} (a) b) S {' '.join(['0'] * 10)} {cpu_ticks} 0 0\n")
    (folder / "statm").write_text("100 10 0\n")
    if listens:
        (proc / "net").mkdir(exist_ok=True)
        (proc / "net/tcp").write_text(
            f"header\n 0: 0100007F:1628 00000000:0000 0A 0 0 0 0 0 {pid * 10}\n"
        )


def test_what_a_process_used_before_and_what_its_successor_uses_are_told_apart(
    tmp_path: Path,
) -> None:
    hertz = os.sysconf("SC_CLK_TCK")
    fake_process(tmp_path, 11, cpu_ticks=5 * hertz)
    processes = Processes([("127.0.0.1", 0x1628)], proc=tmp_path)
    fake_process(tmp_path, 11, cpu_ticks=7 * hertz)
    usage = processes.usage()
    assert usage is not None
    assert 2 == usage.cpu_s

    for path in sorted((tmp_path / "11").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    fake_process(tmp_path, 12, cpu_ticks=3 * hertz)
    usage = processes.usage()

    assert usage is not None
    assert 5 == usage.cpu_s
    assert [11, 12] == processes.pids
