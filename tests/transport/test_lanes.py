"""Large payloads go in parts: what others send passes between them, their own channel's stays."""

from __future__ import annotations

import dataclasses
import tracemalloc

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from leveret.transport import TransportConfig

from .support import ONE, TWO, Node, pair
from .virtual import WINDOW_BYTES, Net

IN_PARTS = TransportConfig(whole_bytes_max=4096, part_bytes=1024)


async def lanes(nursery: trio.Nursery, config: TransportConfig = IN_PARTS) -> tuple[Node, Node]:
    """Return two linked nodes; the first one also hears of two channels with large payloads."""
    first, second = await pair(nursery, config=config)
    first.note_sizes("large")
    first.note_sizes("larger")
    first.events.clear()
    return first, second


async def test_small_messages_pass_a_large_one_and_its_own_channel_keeps_its_order(
    autojump_clock: MockClock, net: Net
) -> None:
    async with trio.open_nursery() as nursery:
        first, second = await lanes(nursery)

        second.peers.send(ONE, "large", "before")
        second.peers.send(ONE, "large", bytes(1_000_000))
        second.peers.send(ONE, "large", "behind")
        second.peers.send(ONE, "test", "passes")
        await first.heard("large", "behind")
        second.peers.send(ONE, "large", "after")
        await first.heard("large", "after")
        nursery.cancel_scope.cancel()

    assert [
        ("large", "before"),
        (TWO, "passes"),
        ("large", 1_000_000),
        ("large", "behind"),
        ("large", "after"),
    ] == first.events


async def test_a_message_waits_for_one_part_and_what_the_kernel_took(
    autojump_clock: MockClock, net: Net
) -> None:
    async with trio.open_nursery() as nursery:
        first, second = await lanes(nursery)
        dialler, _ = net.connections[-1]
        dialler.outgoing.is_stuck = True
        second.peers.send(ONE, "large", bytes(1_000_000))
        await wait_all_tasks_blocked()
        second.peers.send(ONE, "test", "passes")
        before = len(dialler.outgoing.sizes)
        dialler.outgoing.is_stuck = False
        dialler.outgoing.changed.unpark_all()
        await first.heard(TWO, "passes")

        assert sum(dialler.outgoing.sizes[before:]) <= WINDOW_BYTES + 2 * IN_PARTS.part_bytes
        assert [(TWO, "passes")] == first.events
        nursery.cancel_scope.cancel()


async def test_large_messages_of_two_channels_take_turns(
    autojump_clock: MockClock, net: Net
) -> None:
    async with trio.open_nursery() as nursery:
        first, second = await lanes(nursery)

        second.peers.send(ONE, "larger", bytes(1_000_000))
        second.peers.send(ONE, "large", bytes(10_000))
        second.peers.send(ONE, "large", bytes(10_001))
        await first.heard("larger", 1_000_000)
        nursery.cancel_scope.cancel()

    assert [("large", 10_000), ("large", 10_001), ("larger", 1_000_000)] == first.events


async def test_what_waits_in_parts_counts_as_queued_until_it_is_sent(
    autojump_clock: MockClock, net: Net
) -> None:
    config = dataclasses.replace(IN_PARTS, queue_congested_bytes=100_000)
    async with trio.open_nursery() as nursery:
        first, second = await lanes(nursery, config)

        second.peers.send(ONE, "large", bytes(1_000_000))
        was_congested = second.peers.congested(ONE)
        await first.heard("large", 1_000_000)

        assert was_congested
        assert not second.peers.congested(ONE)
        nursery.cancel_scope.cancel()


async def test_a_link_that_breaks_within_a_large_message_loses_it_whole(
    autojump_clock: MockClock, net: Net
) -> None:
    async with trio.open_nursery() as nursery:
        first, second = await lanes(nursery)
        dialler, _ = net.connections[-1]
        sent: list[bytes] = []
        take = dialler.outgoing.put

        def cut_after_some(data: bytes) -> None:
            take(data)
            sent.append(data)
            if len(sent) == 100:
                net.cut()

        dialler.outgoing.put = cut_after_some  # type: ignore[method-assign]
        second.peers.send(ONE, "large", bytes(1_000_000))
        second.peers.send(ONE, "large", "behind")
        await second.heard("up", ONE, times=2)

        assert second.peers.send(ONE, "large", bytes(10_000))
        await first.heard("large", 10_000)
        nursery.cancel_scope.cancel()

    assert [("down", TWO), ("up", TWO), ("large", 10_000)] == first.events


async def test_what_comes_behind_a_large_message_needs_no_sends_of_its_own(
    autojump_clock: MockClock, net: Net
) -> None:
    async with trio.open_nursery() as nursery:
        first, second = await lanes(nursery)
        dialler, _ = net.connections[-1]
        before = len(dialler.outgoing.sizes)
        second.peers.send(ONE, "large", bytes(5_000))
        for number in range(1_000):
            second.peers.send(ONE, "large", number)
        second.peers.send(ONE, "large", bytes(5_001))
        second.peers.send(ONE, "large", "last")
        await first.heard("large", "last")
        nursery.cancel_scope.cancel()

    expected = [5_000, *range(1_000), 5_001, "last"]
    assert [("large", one) for one in expected] == first.events
    assert len(dialler.outgoing.sizes) - before <= 20


async def test_what_waits_behind_a_large_message_keeps_nothing_else_in_memory(
    autojump_clock: MockClock, net: Net
) -> None:
    async with trio.open_nursery() as nursery:
        _, second = await lanes(nursery)
        dialler, _ = net.connections[-1]
        dialler.outgoing.is_stuck = True
        second.peers.send(ONE, "large", bytes(100_000))
        await wait_all_tasks_blocked()
        for _ in range(100):
            second.peers.send(ONE, "test", bytes(4_000))
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for _ in range(100):
                second.peers.send(ONE, "large", bytes(100))
                second.peers.send(ONE, "larger", bytes(10_000))
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        assert after - before < 3 * 100 * 10_100
        nursery.cancel_scope.cancel()
