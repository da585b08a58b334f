"""How many clients fit into a process's descriptors."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from leveret.node.descriptor_limit import connections_within, descriptors_for, make_room


@pytest.mark.parametrize("connections", [1, 9, 10, 829, 10_000, 1_000_000])
def test_the_descriptors_needed_for_connections_are_enough_and_no_more(connections: int) -> None:
    needed = descriptors_for(connections)

    assert connections_within(needed) >= connections
    assert connections == 1 or connections_within(needed - 1) < connections


@pytest.mark.parametrize("descriptors", [0, 50, 100, 101])
def test_with_hardly_any_descriptors_there_is_room_for_one(descriptors: int) -> None:
    assert connections_within(descriptors) == 1


@pytest.mark.parametrize(
    ("before", "connections", "room", "after"),
    [
        ((1024, 4096), 10, 10, 1024),  # enough as it is
        ((1024, 4096), 2000, 2000, 2323),  # raised as far as is needed
        ((1024, 4096), 10_000, 3596, 4096),  # raised as far as is allowed
        ((300, 300), 10_000, 180, 300),
    ],
)
def test_a_process_raises_its_own_limit_as_far_as_it_may(
    before: tuple[int, int], connections: int, room: int, after: int
) -> None:
    # In a process of its own: who lowers a hard limit cannot raise it again.
    script = (
        "import resource as r\n"
        f"r.setrlimit(r.RLIMIT_NOFILE, {before})\n"
        "from leveret.node.descriptor_limit import make_room\n"
        f"print(make_room({connections}), *r.getrlimit(r.RLIMIT_NOFILE))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert f"{room} {after} {before[1]}\n" == ran.stdout


def test_a_process_that_may_not_raise_its_limit_has_room_within_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A kernel whose own bound was lowered below the process's hard limit, or that has a sandbox.
    def refuse(*_: object) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (300, 1 << 30))
    monkeypatch.setattr(resource, "setrlimit", refuse)

    assert make_room(10_000) == 180
