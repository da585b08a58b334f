"""Celery with its own worker over `pyamqp://`: no task is lost when a node is killed.

The worker and the client know the three nodes as Celery's failover wants them, and acknowledge
late. Each run of a task is noted in a file; a task may run twice, which late acknowledgement means.
"""

from __future__ import annotations

import contextlib
import importlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.foreign.conftest import WITHIN_S, Cluster, noted, wait_until

celery = pytest.importorskip("celery", reason="celery is not installed: pip install celery")

QUEUE = "celery"
TASKS = 60
ETA_S = 8.0
STOP_WITHIN_S = 30.0


@dataclass
class Team:
    """A team's application, its worker, the tasks' runs, and what a monitor sees of them."""

    app: ModuleType
    worker: subprocess.Popen[bytes]
    runs: Path
    events: Path

    def missing(self, wanted: set[str]) -> set[str]:
        """What has not run yet of `wanted`: name of the task and its arguments."""
        return wanted - {line.rpartition(" ")[0] for line in noted(self.runs)}

    def ran_at(self, run: str) -> float:
        """When a task ran first, by the wall clock."""
        return min(
            float(line.rpartition(" ")[2]) for line in noted(self.runs) if line.startswith(run)
        )

    def pings(self) -> list[str]:
        """The workers that answer now."""
        answers = self.app.app.control.inspect(timeout=10, limit=1).ping()
        return list(answers or {})


@contextlib.contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program of Celery's for the length of a block."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def team(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Team]:
    runs, events = tmp_path / "runs", tmp_path / "events"
    urls = ";".join(url.replace("amqp://", "pyamqp://") for url in cluster.urls)
    monkeypatch.setenv("BROKER_URLS", urls)
    monkeypatch.setenv("RUNS", str(runs))
    name = "tests.foreign.celery_app"
    sys.modules.pop(name, None)
    app = importlib.import_module(name)
    command = [sys.executable, "-u", "-m", "celery", "-A", name]
    with contextlib.ExitStack() as stack:
        worker = stack.enter_context(
            running([*command, "worker", "-c", "2", "-l", "info"], tmp_path / "worker.log")
        )
        stack.enter_context(running([*command, "events", "--dump"], events))
        yield Team(app, worker, runs, events)
        app.app.close()


@pytest.mark.filterwarnings("ignore")  # Celery's own, of its libraries
@pytest.mark.parametrize("victim", ["the node it is connected to", "the leader of its queue"])
def test_celery_loses_no_task_when_a_node_is_killed(
    cluster: Cluster, team: Team, victim: str
) -> None:
    app: Any = team.app
    assert app.add.delay(1, 2).get(timeout=WITHIN_S) == 3
    assert celery.chain(app.add.s(1, 2), app.add.s(3)).delay().get(timeout=WITHIN_S) == 6
    assert celery.group(app.add.s(i, i) for i in range(3)).delay().get(timeout=WITHIN_S) == [
        0,
        2,
        4,
    ]
    assert len(team.pings()) == 1
    for number in range(TASKS):
        app.work.delay(number)
    app.fails_twice.delay(1)
    sent_at = time.time()
    app.work.apply_async((1000,), countdown=ETA_S)

    cluster.kill(0 if victim.startswith("the node") else cluster.leader_of(QUEUE))

    for number in range(TASKS, 2 * TASKS):
        app.work.delay(number)
    app.fails_twice.delay(2)
    wanted = {f"work {number}" for number in (*range(2 * TASKS), 1000)}
    wanted |= {f"fails_twice {number} {retry}" for number in (1, 2) for retry in range(3)}
    wait_until(lambda: not team.missing(wanted), f"ran: {sorted(team.missing(wanted))[:5]}")
    assert team.ran_at("work 1000") - sent_at > ETA_S - 1
    wait_until(lambda: len(team.pings()) == 1, "the worker answers a ping")
    seen = team.events.read_text()
    assert app.add.delay(3, 4).get(timeout=WITHIN_S) == 7
    wait_until(
        lambda: "task succeeded" in team.events.read_text()[len(seen) :], "the monitor goes on"
    )
    assert team.worker.poll() is None
