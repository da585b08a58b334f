"""When a publisher's socket is read."""

from __future__ import annotations

import trio
from trio.testing import MockClock

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
