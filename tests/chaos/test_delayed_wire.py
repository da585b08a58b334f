"""Frames in a delayed wire are held as long as they should be, and overtake where they should."""

from __future__ import annotations

from random import Random

import pytest

from chaos.delayed_wire import HELD_BYTES_MAX, Holding, Way

FRAMES = [bytes([number]) for number in range(200)]


def way(holding: Holding) -> Way:
    made = Way(Random(1))
    made.holding = holding
    return made


def test_a_frame_comes_out_after_its_delay_and_not_before() -> None:
    wire = way(Holding(0.25))
    wire.take(b"frame", 10.0)

    assert 10.25 == wire.next_s
    assert [] == list(wire.come_out(10.249))
    assert [b"frame"] == list(wire.come_out(10.25))
    assert wire.next_s is None


def test_frames_are_held_for_different_times_but_none_overtakes_another() -> None:
    wire = way(Holding(0.1, 0.05))
    held_s: list[float] = []
    for frame in FRAMES:
        wire.take(frame, 0.0)
    out: list[bytes] = []
    while wire.next_s is not None:
        held_s.append(wire.next_s)
        out += wire.come_out(wire.next_s)

    assert FRAMES == out
    assert 0.1 <= held_s[0] < held_s[-1] <= 0.15
    assert 0 == wire.counts.overtaken


def test_a_share_of_the_frames_is_overtaken_and_counted() -> None:
    wire = way(Holding(0.1, share=0.25, late_s=0.05))
    for number, frame in enumerate(FRAMES):
        wire.take(frame, number / 1000)
    out = [frame for step in range(1000) for frame in wire.come_out(step / 1000)]

    assert sorted(FRAMES) == sorted(out)
    overtaken = sum(frame < max(out[:at], default=b"") for at, frame in enumerate(out))
    assert 20 < overtaken == wire.counts.overtaken < 80


def test_what_is_held_flows_at_once_in_its_order_and_nothing_is_held_any_more() -> None:
    wire = way(Holding(5.0, share=0.5, late_s=5.0))
    for frame in FRAMES:
        wire.take(frame, 0.0)

    assert FRAMES == list(wire.flow())
    wire.take(b"next", 0.1)
    assert [b"next"] == list(wire.come_out(0.1))
    assert 0 == wire.counts.overtaken


@pytest.mark.parametrize("size", [1500, 60_000])
def test_what_finds_no_room_is_lost_and_counted(size: int) -> None:
    wire = way(Holding(1.0))
    fit = HELD_BYTES_MAX // size
    for _ in range(fit + 3):
        wire.take(bytes(size), 0.0)

    assert 3 == wire.counts.lost
    assert fit == len(list(wire.come_out(1.0)))
    wire.take(b"again", 1.0)
    assert 3 == wire.counts.lost
