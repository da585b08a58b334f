"""The frames that tell a publisher of its messages' outcomes."""

from __future__ import annotations

from random import Random

import pytest

from leveret.broker.channels.confirms import Confirms


def taken(confirms: Confirms) -> list[tuple[int, bool, bool]]:
    return [tuple(confirm) for confirm in confirms.take()]  # type: ignore[misc]


def test_consecutive_messages_become_one_frame() -> None:
    confirms = Confirms()
    confirms.done(1, 2, refused=False)
    confirms.done(3, 3, refused=False)

    assert taken(confirms) == [(5, True, False)]
    assert taken(confirms) == []


def test_a_single_message_is_not_multiple() -> None:
    confirms = Confirms()
    confirms.done(1, 1, refused=False)
    assert taken(confirms) == [(1, False, False)]
    confirms.done(2, 1, refused=False)
    assert taken(confirms) == [(2, False, False)]


def test_what_is_done_out_of_order_does_not_speak_for_what_is_open() -> None:
    confirms = Confirms()
    confirms.done(3, 2, refused=False)
    assert taken(confirms) == [(3, False, False), (4, False, False)]

    confirms.done(1, 2, refused=False)

    assert taken(confirms)[-1][:2] in {(2, True), (4, True)}


def test_refused_messages_are_told_one_by_one_and_first() -> None:
    confirms = Confirms()
    confirms.done(1, 1, refused=False)
    confirms.done(2, 2, refused=True)
    confirms.done(4, 1, refused=False)

    assert taken(confirms) == [(2, False, True), (3, False, True), (4, True, False)]


@pytest.mark.parametrize("seed", range(30))
def test_each_message_is_told_once_with_its_outcome_first(seed: int) -> None:
    random = Random(seed)
    runs, first = [], 1
    while first < 60:
        count = random.randint(1, 6)
        runs.append((first, count, random.random() < 0.3))
        first += count
    random.shuffle(runs)
    confirms, told = Confirms(), dict[int, bool]()
    for position, (start, count, refused) in enumerate(runs):
        confirms.done(start, count, refused=refused)
        if position % 3 == 0 or position == len(runs) - 1:
            for tag, multiple, is_refused in taken(confirms):
                # As clients do: a multiple settles all that is still open up to the tag.
                for number in range(1, tag + 1) if multiple else (tag,):
                    told.setdefault(number, is_refused)

    expected = {n: refused for start, count, refused in runs for n in range(start, start + count)}
    assert expected == told
