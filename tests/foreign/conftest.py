"""A cluster of three nodes of which one is killed under foreign clients that know nothing of us."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import nodes
from tests.support.nodes import LeveretProcess

WITHIN_S = 90.0
"""How long is waited for what must come: an outage, and the clients' pauses, on a busy machine."""


class Cluster:
    """Three nodes; a test kills some, the next one finds them all well."""

    def __init__(self, members: list[LeveretProcess]) -> None:
        self.members = members

    @property
    def urls(self) -> list[str]:
        return [member.urls[0] for member in self.members]

    def heal(self) -> None:
        for member in self.members:
            if not member.is_running:
                member.kill()
                member.launch()
        for member in self.members:
            member.wait_ready()

    def kill(self, place: int) -> None:
        self.members[place].kill()

    def leader_of(self, queue: str) -> int:
        """Return the place of the node that leads a queue."""
        command = [sys.executable, "-m", "leveret.cli.main", "ctl", "list_queues"]
        command += ["name", "leader", "--json", "--data-dir", str(self.members[1].data)]
        listed = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
        leaders = {row["name"]: row["leader"] for row in json.loads(listed)}
        return int(str(leaders[queue]).removeprefix("node-")) - 1


@pytest.fixture(scope="session")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(nodes.members(tmp_path_factory.mktemp("cluster")))
    try:
        yield cluster
    finally:
        for member in cluster.members:
            member.kill()


@pytest.fixture(autouse=True)
def _leave_no_sockets() -> Iterator[None]:
    """Collect what a client left open when its node died, before the next test is blamed for it."""
    yield
    gc.collect()


@pytest.fixture
def cluster(_running: Cluster) -> Cluster:
    _running.heal()
    return _running


def wait_until(is_true: Callable[[], bool], what: str) -> None:
    """Wait for a condition; it may take `WITHIN_S`."""
    deadline = time.monotonic() + WITHIN_S
    while not is_true():
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.1)


def noted(file: Path) -> list[str]:
    """Return the whole lines of a file that others append to."""
    return file.read_text().splitlines() if file.exists() else []
