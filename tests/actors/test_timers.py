"""The timer wheel, under trio's virtual clock."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from leveret.actors import Actor, Ref, Supervisor, Timers, supervise

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class Clocked(Actor[str]):
    """Writes down what it was told and when, in seconds since it was made."""

    def __init__(self) -> None:
        self.began_s = trio.current_time()
        self.told: list[tuple[str, float]] = []

    def receive(self, message: str) -> None:
        self.told.append((message, trio.current_time() - self.began_s))


class Bench:
    """A running wheel and one actor."""

    def __init__(self, supervisor: Supervisor, nursery: trio.Nursery) -> None:
        self.timers = Timers()
        self.clocked = Clocked()
        self.ref: Ref[str] = supervisor.spawn(lambda: self.clocked, "clocked", high=1, limit=2)
        nursery.start_soon(self.timers.run, name="timers")

    def messages(self) -> list[str]:
        return [message for message, _ in self.clocked.told]


@asynccontextmanager
async def running() -> AsyncGenerator[Bench, None]:
    async with trio.open_nursery() as nursery:
        async with supervise() as supervisor:
            yield Bench(supervisor, nursery)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("delay_s", [0.0, 0.004, 0.01, 0.29, 1.0, 86_400.0])
async def test_a_timer_is_told_never_early_and_at_most_a_slot_late(
    delay_s: float, autojump_clock: MockClock
) -> None:
    async with running() as bench:
        bench.timers.after(delay_s, bench.ref, "a")
        await trio.sleep(delay_s + 1)

        [(_, told_s)] = bench.clocked.told
    assert delay_s - 1e-9 <= told_s <= delay_s + 0.01 + 1e-9


async def test_timers_are_told_in_the_order_of_their_deadlines_then_of_setting(
    autojump_clock: MockClock,
) -> None:
    async with running() as bench:
        for delay_s, message in ((3.0, "d"), (1.0, "a"), (2.0, "b"), (2.0, "c")):
            bench.timers.after(delay_s, bench.ref, message)
        await trio.sleep(4)

        assert bench.messages() == ["a", "b", "c", "d"]


async def test_an_earlier_timer_shortens_the_running_sleep(autojump_clock: MockClock) -> None:
    async with running() as bench:
        bench.timers.after(100, bench.ref, "late")
        await trio.sleep(1)
        bench.timers.after(1, bench.ref, "early")
        await trio.sleep(2)

        [(message, told_s)] = bench.clocked.told
    assert message == "early"
    assert told_s == pytest.approx(2)


async def test_a_cancelled_timer_is_not_told(autojump_clock: MockClock) -> None:
    async with running() as bench:
        timer = bench.timers.after(1, bench.ref, "a")
        bench.timers.after(1, bench.ref, "b")
        timer.cancel()
        timer.cancel()
        await trio.sleep(2)
        timer.cancel()

        assert bench.messages() == ["b"]


async def test_telling_a_stopped_actor_is_ignored(autojump_clock: MockClock) -> None:
    async with running() as bench, supervise() as supervisor:
        gone = supervisor.spawn(Clocked, "gone")
        bench.timers.after(1, gone, "nobody hears")
        bench.timers.after(1, bench.ref, "a")
        gone.close()
        await trio.sleep(2)

        assert bench.messages() == ["a"]


async def test_a_full_mailbox_is_told_with_a_later_slot(autojump_clock: MockClock) -> None:
    gate = trio.Event()

    class Slow(Clocked):
        async def flush(self) -> None:
            await gate.wait()

    async with running() as bench, supervise() as supervisor:
        slow = Slow()
        ref = supervisor.spawn(lambda: slow, "slow", high=1, limit=1)
        ref.tell("in hand")
        await wait_all_tasks_blocked()
        ref.tell("queued")
        bench.timers.after(1, ref, "timed")
        await trio.sleep(1.5)
        gate.set()
        await trio.sleep(0.5)

    assert [message for message, _ in slow.told] == ["in hand", "queued", "timed"]


async def test_an_idle_wheel_never_wakes(autojump_clock: MockClock) -> None:
    class Steps(trio.abc.Instrument):
        count = 0

        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            self.count += task.name == "timers"

    async with running() as bench:
        await wait_all_tasks_blocked()
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        await trio.sleep(3_600)
        assert steps.count == 0

        bench.timers.after(60, bench.ref, "a")
        await trio.sleep(3_600)
        trio.lowlevel.remove_instrument(steps)
        assert bench.messages() == ["a"]
        assert steps.count <= 2  # one for the new deadline at most, one to tell


async def test_timers_set_before_the_wheel_runs_are_told(autojump_clock: MockClock) -> None:
    timers, clocked = Timers(), Clocked()
    async with supervise() as supervisor, trio.open_nursery() as nursery:
        timers.after(1, supervisor.spawn(lambda: clocked, "clocked"), "a")
        await trio.sleep(5)
        nursery.start_soon(timers.run)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert [message for message, _ in clocked.told] == ["a"]
