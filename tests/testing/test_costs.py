"""What a start does, counted: 1,000 of them are to take seconds (see bench_testing.py)."""

from __future__ import annotations

import hashlib
import threading

import pytest
import trio
from trio.testing import MockClock

from leveret.client import connect
from leveret.testing import broker

SYNCS_MAX = 12
TASKS_MAX = 25
STEPS_MAX = 450


class Counter(trio.abc.Instrument):
    """Counts the tasks that begin, and how often any task runs."""

    def __init__(self) -> None:
        self.tasks = 0
        self.steps = 0

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self.tasks += 1

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps += 1


async def test_a_start_and_its_end_are_few_syncs_tasks_and_steps() -> None:
    counter = Counter()
    trio.lowlevel.add_instrument(counter)
    async with broker() as b:
        syncs = b._nodes[1].disk.syncs
    trio.lowlevel.remove_instrument(counter)

    print(f"{syncs} syncs, {counter.tasks} tasks, {counter.steps} steps")
    assert syncs <= SYNCS_MAX
    assert counter.tasks <= TASKS_MAX
    assert counter.steps <= STEPS_MAX


async def test_a_start_and_a_login_wait_for_nothing(autojump_clock: MockClock) -> None:
    """No election, no look-out, no delay: the virtual clock does not move."""
    began_s = trio.current_time()
    async with broker() as b, connect(b.url):
        assert began_s == trio.current_time()


async def test_a_start_and_a_login_hash_nothing_slowly_and_need_no_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> bytes:
        raise AssertionError("a test has no secrets to keep")

    monkeypatch.setattr(hashlib, "scrypt", refuse)
    threads = threading.active_count()
    async with broker() as b, connect(b.url):
        assert threads == threading.active_count()
