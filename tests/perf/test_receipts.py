"""The judge finds every fault that a broker can make, and none that it did not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret.perf.receipts import Bits, Faults, Receipts, Sent, Verdict, judge, unpacked

Delivery = tuple[int, int, bool]
"""Consumer, number, whether it is marked as redelivered."""


def bits(numbers: Iterable[int]) -> bytes:
    made = Bits()
    for number in numbers:
        made.add(number)
    return made.packed()


def receipts(deliveries: Iterable[Delivery]) -> Receipts:
    taken = Receipts()
    for consumer, number, is_redelivered in deliveries:
        taken.take(queue=0, consumer=consumer, producer=0, sequence=number,
                   is_redelivered=is_redelivered)  # fmt: skip
    return taken


def judged(sent: int, *processes: Sequence[Delivery], unconfirmed: Iterable[int] = ()) -> Verdict:
    """Judge what came to consumers in several processes of `sent` messages to one queue."""
    expected = set(range(sent)) - set(unconfirmed)
    taken = [receipts(deliveries) for deliveries in processes]
    faults = Faults()
    for one in taken:
        faults.add(one.faults)
    came = [came for one in taken for came in one.came()]
    return judge([(Sent(0, sent, bits(expected)), (0,))], came, faults)


def in_order(numbers: Iterable[int], *, consumer: int = 0) -> list[Delivery]:
    return [(consumer, number, False) for number in numbers]


@given(st.sets(st.integers(0, 5000)))
def test_a_packed_set_has_a_bit_for_each_number(numbers: set[int]) -> None:
    assert sum(1 << number for number in numbers) == unpacked(bits(numbers))


def test_messages_that_come_once_and_in_order_are_clean() -> None:
    verdict = judged(100, in_order(range(100)))

    assert verdict.is_clean
    assert (100, 100) == (verdict.expected, verdict.received)


@given(st.lists(st.integers(0, 2), min_size=30, max_size=30))
def test_messages_that_are_spread_over_consumers_and_processes_are_clean(places: list[int]) -> None:
    deliveries = [in_order([n for n in range(30) if places[n] == place], consumer=place)
                  for place in range(3)]  # fmt: skip

    assert judged(30, *deliveries).is_clean


@pytest.mark.parametrize(
    ("fault", "deliveries"),
    [
        ("lost", in_order([0, 1, 3])),
        ("duplicated", in_order([0, 1, 1, 2, 3])),
        ("unordered", in_order([0, 2, 1, 3])),
        ("invented", in_order([0, 1, 2, 3, 4])),
    ],
)
def test_each_fault_is_counted_as_what_it_is(fault: str, deliveries: list[Delivery]) -> None:
    verdict = judged(4, deliveries)

    assert not verdict.is_clean
    found = {
        name: count
        for name in ("lost", "duplicated", "unordered", "invented", "corrupt")
        if (count := getattr(verdict, name))
    }
    assert {fault: 1} == found


def test_a_message_that_comes_to_two_processes_is_duplicated() -> None:
    assert 1 == judged(3, in_order([0, 1, 2]), in_order([1], consumer=1)).duplicated


def test_what_is_marked_as_redelivered_may_come_again_and_late() -> None:
    verdict = judged(3, [(0, 0, False), (0, 2, False), (0, 1, True), (0, 2, True)])

    assert verdict.is_clean
    assert 2 == verdict.redelivered


def test_a_message_that_was_not_confirmed_may_come_or_not() -> None:
    assert judged(3, in_order([0, 1]), unconfirmed=[2]).is_clean
    assert judged(3, in_order([0, 1, 2]), unconfirmed=[2]).is_clean


def test_each_queue_that_a_producer_reaches_must_get_its_copy() -> None:
    taken = receipts(in_order(range(4)))

    verdict = judge([(Sent(0, 4, bits(range(4))), (0, 1))], taken.came(), Faults())

    assert (8, 4, 4) == (verdict.expected, verdict.received, verdict.lost)


def test_a_message_of_a_producer_that_does_not_reach_the_queue_was_never_sent_there() -> None:
    taken = receipts(in_order([0]))

    verdict = judge([(Sent(0, 1, bits([0])), (1,))], taken.came(), Faults())

    assert (1, 1) == (verdict.lost, verdict.invented)


def test_a_corrupt_message_is_a_fault() -> None:
    assert not judge([], [], Faults(corrupt=1)).is_clean
    assert judge([], [], Faults(foreign=1)).is_clean
