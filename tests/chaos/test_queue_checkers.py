"""The checkers of depths, of what is for one alone and of silence find planted mistakes."""

from __future__ import annotations

import pytest

from chaos.checkers.queues import accounts, exclusive, single_active
from chaos.checkers.silence import gaps, silence
from chaos.history import (
    Deliver,
    Depth,
    Ended,
    Event,
    Fault,
    Held,
    MessageId,
    Outcome,
    Publish,
    Recovered,
    Settle,
)

FIRST, SECOND, THIRD = (MessageId("p", 1, number) for number in range(1, 4))


def consumed(id_: MessageId, t: float, *, session: str = "c.1") -> list[Event]:
    return [
        Deliver(t, "q", session, False, id_, id_.number),
        Settle(t, "q", session, id_.number, "ack"),
    ]


def books(*, count: int, ended: bool = True) -> list[Event]:
    """Three published, two confirmed, one of those acknowledged; then a look."""
    return [
        *(Publish(0.1, id_, ("q",)) for id_ in (FIRST, SECOND, THIRD)),
        Outcome(0.2, FIRST, "ok"),
        Outcome(0.2, SECOND, "ok"),
        *consumed(FIRST, 0.3),
        *([Ended(0.4, "q", "c.1")] if ended else []),
        Depth(1.0, "calm", 1, "q", count),
    ]


@pytest.mark.parametrize("count", [1, 2])
def test_what_no_answer_came_for_may_be_in_the_queue_or_not(count: int) -> None:
    assert [] == list(accounts(books(count=count)))


@pytest.mark.parametrize("count", [-1, 0, 3])
def test_a_message_too_few_or_too_many_is_found_by_the_depth(count: int) -> None:
    [complaint] = accounts(books(count=count))

    assert complaint.startswith("accounts: ")


def test_an_acknowledgement_of_a_broken_session_may_be_lost_but_no_more_than_it() -> None:
    assert [] == list(accounts(books(count=3, ended=False)))
    assert 1 == len(list(accounts(books(count=4, ended=False))))


def test_a_returned_message_is_not_in_the_queue() -> None:
    returned: list[Event] = [Publish(0.1, FIRST, ("q",)), Outcome(0.2, FIRST, "returned")]

    assert [] == list(accounts([*returned, Depth(1.0, "calm", 1, "q", 0)]))
    assert 1 == len(list(accounts([*returned, Depth(1.0, "calm", 1, "q", 1)])))


def test_an_exclusive_queue_of_two_at_once_is_found_away_from_faults_only() -> None:
    one, other = Held(1.0, 3.0, "x", "e"), Held(2.0, 4.0, "y", "e")
    fault = Fault(0.5, 1.5, "partition", (1,))

    assert [] == list(exclusive([one, Held(3.0, 4.0, "y", "e")], grace_s=1.0))
    assert [] == list(exclusive([one, Held(2.0, 4.0, "y", "other")], grace_s=1.0))
    assert 1 == len(list(exclusive([one, other], grace_s=1.0)))
    assert [] == list(exclusive([fault, one, other], grace_s=1.0))
    assert 1 == len(list(exclusive([fault, one, other], grace_s=0.1)))


def test_a_shorter_hold_within_a_long_one_does_not_hide_the_next_overlap() -> None:
    held = [Held(0.0, 9.0, "x", "e"), Held(1.0, 2.0, "y", "e"), Held(3.0, 4.0, "z", "e")]

    assert 2 == len(list(exclusive(held, grace_s=1.0)))


def test_a_single_active_consumer_that_comes_back_is_found_away_from_faults_only() -> None:
    def got(session: str, t: float) -> Event:
        return Deliver(t, "q", session, False, FIRST, 1)

    events = [got("a", 1.0), got("a", 2.0), got("b", 3.0)]
    back = [*events, got("a", 4.0)]
    fault = Fault(2.5, 3.5, "stop", (1,))

    assert [] == list(single_active(events, queues=["q"], grace_s=1.0))
    assert 1 == len(list(single_active(back, queues=["q"], grace_s=1.0)))
    assert [] == list(single_active(back, queues=["other"], grace_s=1.0))
    assert [] == list(single_active([fault, *back], queues=["q"], grace_s=1.0))


def test_a_single_active_consumer_that_changes_all_the_time_is_found_in_a_fault_too() -> None:
    def got(turns: int) -> list[Event]:
        fault = Fault(0.0, 100.0, "stop", (1,))
        return [
            fault,
            *(Deliver(t, "q", f"c.{t % 2}", False, FIRST, 1) for t in range(turns)),
        ]

    assert [] == list(single_active(got(8), queues=["q"], grace_s=1.0))
    [complaint] = single_active(got(9), queues=["q"], grace_s=1.0)

    assert "back 7 times, 6 at most" in complaint


def test_single_active_consumers_of_many_sessions_have_their_turns() -> None:
    events: list[Event] = [Deliver(t, "q", f"c.{t}", False, FIRST, 1) for t in range(50)]

    assert [] == list(single_active(events, queues=["q"], grace_s=1.0))


def silent(*, of_s: float, fault: Fault | None = None) -> list[Event]:
    """A queue that owes a confirm from 1.0 on and gives it `of_s` later."""
    events: list[Event] = [
        Publish(0.1, FIRST, ("q",)),
        Outcome(0.2, FIRST, "ok"),
        Publish(1.0, SECOND, ("q",)),
    ]
    if fault is not None:
        events.append(fault)
    return [*events, Outcome(1.0 + of_s, SECOND, "ok")]


def test_a_queue_that_owes_nothing_is_not_silent() -> None:
    [gap] = gaps(silent(of_s=0.5), nodes=3)

    assert pytest.approx(1.0) == gap.began
    assert pytest.approx(0.5) == gap.long_s


def test_a_silence_is_found_unless_a_majority_was_gone() -> None:
    minority = Fault(1.5, 4.0, "kill", (1,))
    majority = Fault(1.5, 4.0, "kill-majority", (1, 2))
    disturbed = Fault(1.5, 4.0, "reset", (1, 2, 3), is_down=False)

    for fault, complaints in ((None, 1), (minority, 1), (disturbed, 1), (majority, 0)):
        events = silent(of_s=5.0, fault=fault)
        assert complaints == len(list(silence(events, nodes=3, within_s=3.0)))
    assert [] == list(silence(silent(of_s=2.0), nodes=3, within_s=3.0))


def test_what_waits_for_a_lost_node_is_not_owed_unless_another_node_has_it() -> None:
    fault = Fault(1.5, 4.0, "stop", (2,))

    def through(node: int) -> list[Event]:
        return [
            fault,
            Publish(1.0, FIRST, ("q",), node),
            Outcome(6.0, FIRST, "ok"),
        ]

    assert [] == list(silence(through(2), nodes=3, within_s=3.0))
    assert 1 == len(list(silence(through(1), nodes=3, within_s=3.0)))


def test_a_publish_that_was_never_answered_makes_no_silence() -> None:
    events: list[Event] = [
        Publish(1.0, FIRST, ("q",)),
        Publish(9.0, SECOND, ("q",)),
        Outcome(9.1, SECOND, "ok"),
    ]

    [gap] = gaps(events, nodes=3)

    assert pytest.approx(0.1) == gap.long_s


def test_two_faults_of_one_node_each_are_a_majority_together_until_all_serve_again() -> None:
    one, other = Fault(0.3, 0.6, "kill", (1,)), Fault(0.5, 0.9, "stop", (2,))
    late = silent(of_s=5.0)

    assert 1 == len(list(silence([one, other, *late], nodes=3, within_s=3.0)))
    assert [] == list(
        silence([one, other, Recovered(4.0, 1, "q", 3.1), *late], nodes=3, within_s=3.0)
    )
    assert 1 == len(
        list(silence([one, other, Recovered(4.0, 1, "q", 3.1), *late], nodes=5, within_s=3.0))
    )
