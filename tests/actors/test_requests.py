"""Asking: answers, deadlines, and what a crash does to requests that are owed an answer."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from leveret.actors import Actor, ActorStopped, Ref, Request, supervise


class Double(Request[int]):
    """Asks for twice a number; a negative one is never answered, zero crashes."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Doubler(Actor[Double]):
    def receive(self, message: Double) -> None:
        if message.number == 0:
            raise ZeroDivisionError
        if message.number > 100:
            message.fail(ValueError("too large"))
        if message.number > 0:
            message.reply(2 * message.number)


async def test_an_ask_returns_the_reply() -> None:
    async with supervise() as supervisor:
        ref = supervisor.spawn(Doubler, "doubler")

        assert await ref.ask(Double(21), within_s=1) == 42
        assert ref.statistics().owed == 0


async def test_an_ask_raises_what_the_request_was_failed_with_and_the_first_answer_wins() -> None:
    async with supervise() as supervisor:
        ref = supervisor.spawn(Doubler, "doubler")

        with pytest.raises(ValueError, match="too large"):
            await ref.ask(Double(101), within_s=1)


async def test_an_ask_gives_up_at_its_deadline(autojump_clock: MockClock) -> None:
    async with supervise() as supervisor:
        ref = supervisor.spawn(Doubler, "doubler")
        began_s = trio.current_time()

        with pytest.raises(trio.TooSlowError):
            await ref.ask(Double(-1), within_s=2)
        assert trio.current_time() - began_s == pytest.approx(2)
        assert ref.statistics().owed == 0


async def asked(ref: Ref[Double], number: int, answers: dict[int, object]) -> None:
    try:
        doubled: int = await ref.ask(Double(number), within_s=60)
        answers[number] = doubled
    except ActorStopped as error:
        answers[number] = str(error)


async def test_a_crash_fails_the_requests_in_hand_and_keeps_those_queued() -> None:
    gate = trio.Event()

    class Late(Doubler):
        async def start(self) -> None:
            await gate.wait()

    answers: dict[int, object] = {}
    async with supervise() as supervisor, trio.open_nursery() as edges:
        ref = supervisor.spawn(Late, "doubler")
        for number in (-1, 0, 4):  # taken and kept; crashes; still queued then
            edges.start_soon(asked, ref, number, answers)
            await wait_all_tasks_blocked()
        gate.set()

    lost = "doubler: ZeroDivisionError()"
    assert answers == {-1: lost, 0: lost, 4: 8}


async def test_stopping_fails_whatever_is_still_owed() -> None:
    answers: dict[int, object] = {}
    async with trio.open_nursery() as edges, supervise() as supervisor:
        ref = supervisor.spawn(Doubler, "doubler")
        edges.start_soon(asked, ref, -1, answers)
        await wait_all_tasks_blocked()

    assert answers == {-1: "doubler: stopped"}


async def test_asking_a_stopped_actor_raises_and_is_owed_nothing() -> None:
    async with supervise() as supervisor:
        ref = supervisor.spawn(Doubler, "doubler")
        ref.close()

        with pytest.raises(ActorStopped):
            await ref.ask(Double(1), within_s=1)
        assert ref.statistics().owed == 0


async def test_an_answer_may_come_long_after_the_batch() -> None:
    kept: list[Double] = []

    class Patient(Actor[Double]):
        def receive(self, message: Double) -> None:
            kept.append(message)

    answers: dict[int, object] = {}
    async with supervise() as supervisor, trio.open_nursery() as edges:
        ref = supervisor.spawn(Patient, "patient")
        edges.start_soon(asked, ref, 3, answers)
        await wait_all_tasks_blocked()
        kept[0].reply(6)

    assert answers == {3: 6}
