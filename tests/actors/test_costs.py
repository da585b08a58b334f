"""What an actor and a message cost, counted in bytes and steps, which are the same on any machine.

Times are in `tests/benchmarks/bench_actors.py`.
"""

from __future__ import annotations

import gc
import tracemalloc
from typing import TYPE_CHECKING

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from leveret.actors import Actor, Timers, supervise

if TYPE_CHECKING:
    from collections.abc import Callable

ACTORS = 200


class Sink(Actor[int]):
    def receive(self, message: int) -> None:
        pass


class Bytes:
    """Counts the bytes allocated since it was made, without what is garbage."""

    def __init__(self) -> None:
        gc.collect()
        self.before = tracemalloc.get_traced_memory()[0]

    def __call__(self) -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - self.before


def traced() -> Callable[[], int]:
    tracemalloc.start()
    return Bytes()


async def test_an_idle_actor_holds_at_most_6_kib() -> None:
    async with supervise() as supervisor:
        count = traced()
        try:
            for _ in range(ACTORS):
                supervisor.spawn(Sink, "sink")
            await wait_all_tasks_blocked()
            held = count()
        finally:
            tracemalloc.stop()

    assert held / ACTORS <= 6 * 1024


async def test_a_burst_costs_the_actor_one_step_and_a_told_message_no_object() -> None:
    class Steps(trio.abc.Instrument):
        count = 0

        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            self.count += task.name == "sink"

    async with supervise() as supervisor:
        ref = supervisor.spawn(Sink, "sink")
        await wait_all_tasks_blocked()
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        count = traced()
        try:
            for _ in range(200):
                ref.tell(1)
            held = count()
        finally:
            tracemalloc.stop()
        await wait_all_tasks_blocked()
        trio.lowlevel.remove_instrument(steps)

    assert held / 200 <= 16  # the deque's pointer, with its blocks' links
    assert steps.count == 1


async def test_cancelled_timers_leave_nothing_behind(autojump_clock: MockClock) -> None:
    async with supervise() as supervisor:
        ref = supervisor.spawn(Sink, "sink")
        timers = Timers()
        count = traced()
        try:
            for number in range(5_000):
                timers.after(60 + number, ref, 0).cancel()  # each in a slot of its own
            held = count()
        finally:
            tracemalloc.stop()

    assert held <= 32 * 1024
