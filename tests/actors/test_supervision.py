"""Crashes, restarts, escalation, and the order of stopping."""

from __future__ import annotations

import logging

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from leveret.actors import Actor, ActorStopped, Probe, Request, Supervisor, supervise


class Bug(Exception):
    """What a mistake in an actor's program raises."""


class Fragile(Actor[str]):
    """Raises `Bug` when told "crash"; writes down what it received, with its incarnation."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self.number = sum(line == "made" for line in lines)
        lines.append("made")

    def receive(self, message: str) -> None:
        if message == "crash":
            raise Bug("a bug")
        self.lines.append(f"{self.number} {message}")


class Ask(Request[str]):
    """Asks for a word."""


@pytest.fixture
def lines() -> list[str]:
    return []


async def test_a_restarted_actor_sits_behind_the_same_ref_and_keeps_what_was_queued(
    lines: list[str],
) -> None:
    async with supervise() as supervisor:
        ref = supervisor.spawn(lambda: Fragile(lines), "fragile")
        for message in ("a", "crash", "b"):
            ref.tell(message)
        await wait_all_tasks_blocked()
        ref.tell("c")

    assert lines == ["made", "0 a", "made", "1 b", "1 c"]


async def test_a_crash_leaves_the_siblings_alone(lines: list[str]) -> None:
    sibling: list[str] = []
    async with supervise() as supervisor:
        ref = supervisor.spawn(lambda: Fragile(lines), "fragile")
        other = supervisor.spawn(lambda: Fragile(sibling), "sibling")
        other.tell("a")
        ref.tell("crash")
        await wait_all_tasks_blocked()
        other.tell("b")

    assert sibling == ["made", "0 a", "0 b"]


async def test_a_crash_is_logged_once_with_its_context(
    lines: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with supervise() as supervisor:
        ref = supervisor.spawn(lambda: Fragile(lines), "queue orders")
        for message in ("crash", "a"):
            ref.tell(message)
        await wait_all_tasks_blocked()

    [record] = caplog.records
    context = vars(record)
    assert (record.levelno, record.getMessage()) == (logging.ERROR, "actor crashed")
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], Bug)
    assert {"actor": "queue orders", "crashes": 1, "queued": 1, "action": "restart"} == {
        key: context[key] for key in ("actor", "crashes", "queued", "action")
    }


@pytest.mark.parametrize("place", ["make", "start", "flush"])
async def test_an_error_outside_receive_counts_as_a_crash_too(place: str) -> None:
    tries: list[str] = []

    class Late(Actor[str]):
        def __init__(self) -> None:
            tries.append("make")
            self.fail("make")

        async def start(self) -> None:
            self.fail("start")

        def receive(self, message: str) -> None:
            tries.append(message)

        async def flush(self) -> None:
            self.fail("flush")

        def fail(self, here: str) -> None:
            if here == place and tries.count("make") == 1:
                raise Bug("a bug")

    async with supervise() as supervisor:
        ref = supervisor.spawn(Late, "late")
        ref.tell("a")
        await wait_all_tasks_blocked()
        ref.tell("b")
        await wait_all_tasks_blocked()

        assert ref.statistics().crashes == 1
    assert [line for line in tries if line != "make"] == ["a", "b"]


async def test_the_fourth_crash_within_five_seconds_escalates(lines: list[str]) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with supervise() as supervisor:
            ref = supervisor.spawn(lambda: Fragile(lines), "fragile")
            for _ in range(3):
                ref.tell("crash")
            await wait_all_tasks_blocked()
            assert ref.statistics().crashes == 3
            ref.tell("crash")
            await trio.sleep_forever()

    [error] = caught.value.exceptions
    assert isinstance(error, Bug)
    assert "gave up on fragile" in error.__notes__[-1]


async def test_crashes_that_are_far_apart_are_mended_for_ever(
    lines: list[str], autojump_clock: MockClock
) -> None:
    async with supervise() as supervisor:
        ref = supervisor.spawn(lambda: Fragile(lines), "fragile")
        for _ in range(9):
            ref.tell("crash")
            await trio.sleep(2)

    assert lines == ["made"] * 10


async def test_escalation_cancels_the_siblings_and_reaches_the_supervisor_around(
    lines: list[str],
) -> None:
    gone: list[str] = []

    class Watch(Probe):
        def stopped(self, ref: object) -> None:
            gone.append(repr(ref))

    with pytest.raises(ExceptionGroup) as caught:
        async with supervise(Watch()) as outer:
            outer.spawn(lambda: Fragile([]), "outer")
            async with supervise(Watch()) as inner:
                inner.spawn(lambda: Fragile([]), "sibling")
                ref = inner.spawn(lambda: Fragile(lines), "fragile")
                for _ in range(4):
                    ref.tell("crash")
                await trio.sleep_forever()

    assert caught.group_contains(Bug)
    assert sorted(gone) == ["<Ref 'fragile'>", "<Ref 'outer'>", "<Ref 'sibling'>"]


async def test_leaving_the_block_stops_youngest_first_and_drains(lines: list[str]) -> None:
    class Upper(Fragile):
        """Older; hears from the younger one until that has stopped."""

    older: list[str] = []

    async with supervise() as supervisor:
        upper = supervisor.spawn(lambda: Upper(older), "older")

        class Lower(Fragile):
            def receive(self, message: str) -> None:
                super().receive(message)
                upper.tell(message)

        younger = supervisor.spawn(lambda: Lower(lines), "younger")
        for message in ("a", "b"):
            younger.tell(message)

    assert lines == ["made", "0 a", "0 b"]
    assert older == ["made", "0 a", "0 b"]


async def test_what_is_queued_survives_a_crash_during_the_drain(lines: list[str]) -> None:
    async with supervise() as supervisor:
        ref = supervisor.spawn(lambda: Fragile(lines), "fragile")
        for message in ("crash", "a", "crash"):
            ref.tell(message)

    assert lines == ["made", "made", "1 a"]  # no third one is made: nothing was left


async def test_who_is_not_done_at_the_deadline_is_cancelled_and_named(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Stuck(Actor[str]):
        def receive(self, message: str) -> None:
            pass

        async def flush(self) -> None:
            await trio.sleep_forever()

    async with supervise(stop_within_s=3) as supervisor:
        ref = supervisor.spawn(Stuck, "stuck")
        ref.tell("a")
        await wait_all_tasks_blocked()
        ref.tell("b")
        began_s = trio.current_time()

    assert trio.current_time() - began_s == pytest.approx(3)
    [record] = caplog.records
    assert vars(record)["actors"] == ["stuck"]
    assert ref.statistics().queued == 0  # nothing keeps the messages alive


async def test_stop_ends_the_block_from_another_task(lines: list[str]) -> None:
    async def stop(supervisor: Supervisor) -> None:
        await supervisor.stop(within_s=1)

    async with trio.open_nursery() as nursery, supervise() as supervisor:
        ref = supervisor.spawn(lambda: Fragile(lines), "fragile")
        ref.tell("a")
        nursery.start_soon(stop, supervisor)
        await trio.sleep_forever()

    assert lines == ["made", "0 a"]


async def test_a_stopping_supervisor_spawns_nobody(lines: list[str]) -> None:
    refused: list[str] = []

    class Parent(Actor[str]):
        def receive(self, message: str) -> None:
            try:
                supervisor.spawn(lambda: Fragile(lines), "child")
            except ActorStopped as error:
                refused.append(str(error))

    async with supervise() as supervisor:
        supervisor.spawn(Parent, "parent").tell("a")

    assert refused == ["child: its supervisor is stopping"]


async def test_an_actor_that_is_closed_ends_alone_and_tells_who_waits(lines: list[str]) -> None:
    async with supervise() as supervisor:
        older = supervisor.spawn(lambda: Fragile([]), "older")
        ref = supervisor.spawn(lambda: Fragile(lines), "fragile")
        ref.tell("a")
        ref.close()
        await ref.stopped()

        assert lines == ["made", "0 a"]
        older.tell("still here")


async def test_the_probe_sees_a_life_in_order() -> None:
    class Diary(Probe):
        def __init__(self) -> None:
            self.lines: list[str] = []

        def started(self, ref: object) -> None:
            self.lines.append("started")

        def batch(self, ref: object, count: int, busy_s: float) -> None:
            self.lines.append(f"batch of {count}")

        def crashed(self, ref: object, error: Exception) -> None:
            self.lines.append(f"crashed: {error}")

        def stopped(self, ref: object) -> None:
            self.lines.append("stopped")

    diary = Diary()
    async with supervise(diary) as supervisor:
        ref = supervisor.spawn(lambda: Fragile([]), "fragile")
        for message in ("crash", "a", "b"):
            ref.tell(message)

    assert diary.lines == ["started", "crashed: a bug", "started", "batch of 2", "stopped"]
