"""Hosts behind a delayed wire really are, their connections live on, and nothing is left of it.

What is measured runs in namespaces of its own (`tests/chaos/two_hosts.py`), which need root, or a
system that lets anybody have them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from chaos.capabilities import into_namespaces
from tests.chaos.two_hosts import DELAY_S, NUMBERS

ROOT = Path(__file__).parents[2]
WAIT_S = 30.0


@pytest.fixture(scope="module")
def into() -> list[str]:
    """What stands before a command that is to run in namespaces of its own."""
    command, reason = into_namespaces()
    if not command:
        pytest.skip(reason)
    return command


@pytest.fixture(scope="module")
def into_hosts(into: list[str]) -> list[str]:
    """Likewise, where delays are possible."""
    if reason := two_hosts(into, "why-not"):
        pytest.skip(str(reason))
    return into


def program(into: list[str], *arguments: str) -> list[str]:
    return [*into, sys.executable, "-m", "tests.chaos.two_hosts", *arguments]


def two_hosts(into: list[str], what: str) -> Any:  # noqa: ANN401 - what JSON can hold
    """Run the program, and return what it saw."""
    done = subprocess.run(
        program(into, what), cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_delay_is_there_on_a_connection_that_lives_on_and_gone_after_it(
    into_hosts: list[str],
) -> None:
    saw = two_hosts(into_hosts, "delayed")

    assert all(round_trip_s >= 2 * DELAY_S for round_trip_s in saw["late_s"])
    assert saw["whole"]
    assert saw["counts"]["passed"] > 2 * len(saw["late_s"])
    assert 0 == saw["counts"]["overtaken"]
    assert saw["as_before"]
    assert saw["whole_after"]


def test_packets_are_overtaken_and_a_connection_carries_what_it_should(
    into_hosts: list[str],
) -> None:
    saw = two_hosts(into_hosts, "reordered")

    assert sorted(saw["numbers"]) == list(range(NUMBERS)) != saw["numbers"]
    assert saw["counts"]["overtaken"] > 0
    assert saw["whole"]


def test_a_host_is_behind_one_wire_at_a_time(into_hosts: list[str]) -> None:
    saw = two_hosts(into_hosts, "twice")

    assert "no TAP devices for n2 n1: " in saw["refused"]
    assert saw["undone"]
    assert saw["as_before"]


def test_a_wire_that_ended_by_itself_is_told_and_the_hosts_are_joined_again(
    into_hosts: list[str],
) -> None:
    saw = two_hosts(into_hosts, "killed")

    assert "a delayed wire has ended" == saw["told"]
    assert saw["as_before"]
    assert saw["whole"]


def test_a_wire_ends_with_its_runner(into_hosts: list[str]) -> None:
    assert ["far-n1", "near-n1"] == two_hosts(into_hosts, "orphaned")["gone"]


def test_nothing_is_left_when_all_is_killed_from_outside(into_hosts: list[str]) -> None:
    seed = f"{time.time_ns()}"
    with subprocess.Popen(
        program(into_hosts, "stay-there", seed), cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as outside:
        assert outside.stdout is not None
        said = outside.stdout.readline()
        there = wires(seed)
        outside.kill()
    assert "stays\n" == said
    assert there

    deadline = time.monotonic() + WAIT_S
    while wires(seed):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wires(seed: str) -> list[str]:
    """Return the processes of the machine that are wires with this seed."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has ended meanwhile
            continue
        if "chaos.delayed_wire" in words and seed in words:
            found.append(process.name)
    return found


def test_a_machine_without_tap_devices_is_told_so_in_words(into: list[str]) -> None:
    hidden = 'mkdir -p /dev/net && mount -t tmpfs tmpfs /dev/net && exec "$@"'
    done = subprocess.run(
        [
            *(*into, "sh", "-c", hidden, "sh"),
            *(sys.executable, "-m", "chaos", "run", "--faults", "delay,reorder"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    why = "no TAP device by /dev/net/tun: No such file or directory"
    assert f"not injected here: delay         {why}\n" in done.stdout
    assert f"not injected here: reorder       {why}\n" in done.stdout
    assert "nothing that was asked for can be broken on this machine" in done.stderr
    assert 1 == done.returncode
