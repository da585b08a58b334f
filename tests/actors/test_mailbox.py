"""Order, batches and back-pressure of one actor's mailbox."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from leveret.actors import Actor, ActorStopped, MailboxFull, Probe, Ref, supervise


class Ledger(Actor[int]):
    """Writes down what it received and after which message it flushed."""

    def __init__(self, gate: trio.Semaphore | None = None) -> None:
        self.lines: list[int | str] = []
        self.gate = gate

    def receive(self, message: int) -> None:
        self.lines.append(message)

    async def flush(self) -> None:
        self.lines.append("flush")
        if self.gate is not None:
            await self.gate.acquire()


async def test_messages_are_received_in_the_order_told_and_flushed_once_a_batch() -> None:
    ledger = Ledger()
    async with supervise() as supervisor:
        ref = supervisor.spawn(lambda: ledger, "ledger")
        for message in range(3):
            ref.tell(message)
        await wait_all_tasks_blocked()
        ref.tell(3)
        await wait_all_tasks_blocked()

        assert ledger.lines == [0, 1, 2, "flush", 3, "flush"]


async def test_a_long_mailbox_is_drained_in_bounded_batches() -> None:
    ledger = Ledger()
    async with supervise() as supervisor:
        ref = supervisor.spawn(lambda: ledger, "ledger")
        for message in range(600):
            ref.tell(message)
        await wait_all_tasks_blocked()

    assert [ledger.lines.index("flush"), ledger.lines.count("flush")] == [256, 3]


async def test_an_actor_that_tells_itself_yields_to_its_neighbours() -> None:
    class Restless(Actor[int]):
        def receive(self, message: int) -> None:
            self.ref.tell(message + 1)

    async with supervise() as supervisor:
        restless = supervisor.spawn(Restless, "restless")
        restless.tell(0)
        ledger = Ledger()
        ref = supervisor.spawn(lambda: ledger, "neighbour")
        ref.tell(7)
        while not ledger.lines:
            await trio.lowlevel.checkpoint()
        await supervisor.stop(within_s=0)

    assert (ledger.lines, restless.statistics().crashes) == ([7, "flush"], 0)


async def test_tell_raises_at_the_hard_limit_and_queues_nothing() -> None:
    async with supervise() as supervisor:
        ref = supervisor.spawn(Ledger, "ledger", high=1, limit=2)
        ref.tell(0)
        ref.tell(1)

        with pytest.raises(MailboxFull, match="ledger"):
            ref.tell(2)
        assert ref.statistics().queued == 2


async def test_tell_raises_once_the_actor_is_closed() -> None:
    async with supervise() as supervisor:
        ref = supervisor.spawn(Ledger, "ledger")
        ref.close()

        with pytest.raises(ActorStopped, match="ledger"):
            ref.tell(0)


async def enter(ref: Ref[int], entered: list[int], number: int) -> None:
    await ref.room()
    entered.append(number)


async def test_edges_wait_above_the_high_mark_and_go_on_at_half_of_it() -> None:
    gate, entered = trio.Semaphore(0), list[int]()
    ledger = Ledger(gate)
    async with supervise() as supervisor, trio.open_nursery() as edges:
        ref = supervisor.spawn(lambda: ledger, "ledger", high=400)
        for message in range(600):  # batches of 256, 256 and 88
            ref.tell(message)
        for number in range(3):
            edges.start_soon(enter, ref, entered, number)
        await wait_all_tasks_blocked()
        assert (entered, ref.statistics().waiting_edges) == ([], 3)

        gate.release()  # 344 are left: below the high mark, yet above half of it
        await wait_all_tasks_blocked()
        assert (entered, ref.statistics().batches) == ([], 1)
        gate.release()
        await wait_all_tasks_blocked()

        assert sorted(entered) == [0, 1, 2]
        gate.release()


async def test_room_is_made_only_when_the_batch_is_flushed() -> None:
    gate, entered = trio.Semaphore(0), list[int]()
    async with supervise() as supervisor, trio.open_nursery() as edges:
        ref = supervisor.spawn(lambda: Ledger(gate), "ledger", high=2)
        for message in range(3):
            ref.tell(message)
        edges.start_soon(enter, ref, entered, 1)
        await wait_all_tasks_blocked()

        assert (ref.statistics().queued, entered) == (0, [])
        gate.release()
        await wait_all_tasks_blocked()
        assert entered == [1]


async def test_closing_lets_waiting_edges_go() -> None:
    gate, entered = trio.Semaphore(0), list[int]()
    async with supervise() as supervisor, trio.open_nursery() as edges:
        ref = supervisor.spawn(lambda: Ledger(gate), "ledger", high=1)
        for message in range(2):
            ref.tell(message)
        edges.start_soon(enter, ref, entered, 1)
        await wait_all_tasks_blocked()
        ref.close()
        await wait_all_tasks_blocked()

        assert entered == [1]
        gate.release()


async def test_room_returns_at_once_when_there_is_room() -> None:
    async with supervise() as supervisor:
        ref = supervisor.spawn(Ledger, "ledger", high=1)
        with trio.testing.assert_no_checkpoints():
            await ref.room()


async def test_statistics_and_probe_agree_on_what_was_handled() -> None:
    class Meter(Probe):
        def __init__(self) -> None:
            self.counts: list[int] = []

        def batch(self, ref: object, count: int, busy_s: float) -> None:
            assert busy_s >= 0
            self.counts.append(count)

    meter = Meter()
    async with supervise(meter) as supervisor:
        ref = supervisor.spawn(Ledger, "ledger")
        for message in range(300):
            ref.tell(message)
        await wait_all_tasks_blocked()

        seen = ref.statistics()
    assert meter.counts == [256, 44]
    assert (seen.received, seen.batches, seen.queued_max, seen.queued) == (300, 2, 300, 0)


async def test_busy_time_is_that_of_the_flush(autojump_clock: trio.testing.MockClock) -> None:
    class Slow(Actor[int]):
        def receive(self, message: int) -> None:
            pass

        async def flush(self) -> None:
            await trio.sleep(2)

    class Meter(Probe):
        busy_s = 0.0

        def batch(self, ref: object, count: int, busy_s: float) -> None:
            self.busy_s = busy_s

    meter = Meter()
    async with supervise(meter) as supervisor:
        supervisor.spawn(Slow, "slow").tell(0)

    assert meter.busy_s == pytest.approx(2)
