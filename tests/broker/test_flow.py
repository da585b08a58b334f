"""When a publisher's socket is read."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from leveret.broker.budget import Budget
from leveret.broker.connections.flow import IN_FLIGHT_BYTES_MAX, SILENT_BEATS_MAX, Flow


async def goes(flow: Flow) -> bool:
    with trio.move_on_after(1) as scope:
        await flow.go()
    return not scope.cancelled_caught


async def test_reading_stops_above_the_limit_and_goes_on_at_half_of_it(
    autojump_clock: MockClock,
) -> None:
    flow = Flow()
    flow.published(IN_FLIGHT_BYTES_MAX)
    assert await goes(flow)
    flow.published(2)
    assert not await goes(flow)

    flow.taken(IN_FLIGHT_BYTES_MAX // 2 + 1)
    assert not await goes(flow)
    flow.taken(1)
    assert await goes(flow)


async def test_an_alarm_stops_reading_until_it_ends(autojump_clock: MockClock) -> None:
    flow = Flow()
    flow.block(blocked=True)
    flow.published(1)
    flow.taken(1)
    assert not await goes(flow)

    flow.block(blocked=False)

    assert await goes(flow)


async def test_the_end_of_an_alarm_does_not_open_a_full_publisher(
    autojump_clock: MockClock,
) -> None:
    flow = Flow()
    flow.published(IN_FLIGHT_BYTES_MAX + 1)
    flow.block(blocked=True)
    flow.block(blocked=False)

    assert not await goes(flow)


def test_who_is_not_read_is_not_silent() -> None:
    flow = Flow()
    flow.block(blocked=True)
    assert not any(flow.is_silent() for _ in range(SILENT_BEATS_MAX + 5))

    flow.block(blocked=False)

    assert [flow.is_silent() for _ in range(SILENT_BEATS_MAX + 1)].count(True) == 1
    flow.heard()
    assert not flow.is_silent()


async def test_publishers_wait_for_each_other_when_all_together_have_too_much_under_way(
    autojump_clock: MockClock,
) -> None:
    budget = Budget(1000)
    one, other, consumer = (Flow(budget=budget) for _ in range(3))
    one.publishes = other.publishes = True
    one.published(1000)
    assert not await goes(one)
    assert not await goes(other)
    assert await goes(consumer)
    assert not other.is_silent()

    one.taken(249)
    assert not await goes(other)
    one.taken(1)
    assert await goes(other)


async def test_a_connection_at_its_end_gives_back_what_it_took(autojump_clock: MockClock) -> None:
    budget = Budget(1000)
    flow = Flow(budget=budget)
    flow.published(300)
    flow.announced({1: 500})
    flow.held(100)
    assert (budget.used_bytes, budget.held_bytes) == (800, 100)

    flow.close()

    assert (budget.used_bytes, budget.held_bytes) == (0, 0)


async def test_who_announces_a_message_without_room_waits_and_counts_when_there_is_some(
    autojump_clock: MockClock,
) -> None:
    budget = Budget(1000)
    one, other = Flow(budget=budget), Flow(budget=budget)
    one.announced({1: 1000})
    assert await goes(one)  # it was begun while there was room

    other.announced({1: 400})
    assert not await goes(other)
    assert budget.used_bytes == 1000

    one.announced({})
    assert await goes(other)
    assert budget.used_bytes == 400


async def test_who_ends_one_message_does_not_begin_another_without_room(
    autojump_clock: MockClock,
) -> None:
    budget = Budget(1000)
    flow = Flow(budget=budget)
    flow.announced({1: 1000})
    flow.published(100)
    assert await goes(flow)
    flow.announced({1: 1000, 2: 10})
    assert await goes(flow)

    flow.published(900)
    flow.announced({2: 10})

    assert not await goes(flow)
