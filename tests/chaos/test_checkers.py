"""Each checker finds its own mistake, planted into a history that is clean without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from chaos.checkers.linear import explain
from chaos.history import (
    Deliver,
    Depth,
    Event,
    MessageId,
    Operation,
    Outcome,
    Publish,
    Recovered,
    Replica,
    body_of,
    id_of,
)
from chaos.simulation.scenario import RECOVERY_S, judge

ZEROTH, FIRST, SECOND, THIRD = (MessageId("p", 1, number) for number in range(4))
ENDLESS = float("inf")


def delivered(id_: MessageId | None, t: float, *, redelivered: bool = False) -> Deliver:
    return Deliver(t, "q0", "c.1", redelivered, id_, int(t * 10))


def clean() -> list[Event]:
    """One publisher, one queue, one consumer; everything as it should be."""
    return [
        *(Publish(id_.number / 10, id_, ("q0",)) for id_ in (FIRST, SECOND, THIRD)),
        Outcome(0.4, FIRST, "ok"),
        Outcome(0.4, SECOND, "ok"),
        delivered(FIRST, 0.5),
        delivered(SECOND, 0.6),
        delivered(FIRST, 0.7, redelivered=True),
        delivered(THIRD, 0.8),
        Operation(0.1, 0.2, "o", "declare", "m", "ok"),
        Operation(0.3, 0.4, "o", "look", "m", "ok"),
        Operation(0.5, ENDLESS, "o", "delete", "m", "unknown"),
        Operation(0.6, 0.7, "x", "look", "m", "ok"),
        Operation(0.8, 0.9, "x", "look", "m", "missing"),
        Recovered(1.0, 1, "q0", 0.5),
        Depth(2.0, "drained", 1, "q0", 0),
        Replica(1, 0, 77, "abc"),
        Replica(2, 0, 77, "abc"),
        Depth(3.0, "restarted", 1, "q0", 0),
    ]


def without(unwanted: Callable[[Event], bool]) -> list[Event]:
    return [event for event in clean() if not unwanted(event)]


def changed(kind: type[Event], at: int, **values: object) -> list[Event]:
    """The clean history with the how-manieth event of a kind changed."""
    events = clean()
    where = [index for index, event in enumerate(events) if isinstance(event, kind)][at]
    events[where] = replace(events[where], **values)  # type: ignore[arg-type]
    return events


def test_a_clean_history_has_no_complaint() -> None:
    assert [] == list(judge(clean()))


@pytest.mark.parametrize(
    ("word", "events"),
    [
        ("lost", without(lambda event: isinstance(event, Deliver) and event.id == SECOND)),
        ("refused", changed(Outcome, 1, type="returned")),
        ("refused", changed(Outcome, 1, type="nack")),
        ("phantom", [*clean(), delivered(MessageId("p", 1, 9), 0.9)]),
        ("phantom", [*clean(), delivered(None, 0.9)]),
        ("phantom", changed(Publish, 2, queues=("q1",))),
        ("unmarked duplicate", [*clean(), delivered(THIRD, 0.9)]),
        ("out of order", [Publish(0, ZEROTH, ("q0",)), *clean(), delivered(ZEROTH, 0.9)]),
        ("depth", changed(Depth, 0, count=1)),
        ("depth", changed(Depth, 0, count=-1)),
        ("resurrected", changed(Depth, 1, count=1)),
        ("recovery", changed(Recovered, 0, after_s=None)),
        ("recovery", changed(Recovered, 0, after_s=RECOVERY_S + 1)),
        ("replicas", changed(Replica, 1, digest="abd")),
        ("replicas", changed(Replica, 1, applied_index=76)),
        ("not linearizable", changed(Operation, 1, result="missing")),
    ],
)
def test_a_planted_mistake_is_found(word: str, events: list[Event]) -> None:
    assert {word} == {complaint.split(":")[0] for complaint in judge(events)}


def test_order_is_not_promised_between_two_consumers_of_a_queue() -> None:
    one, other = delivered(SECOND, 0.5), delivered(FIRST, 0.6)
    events: list[Event] = [
        *(Publish(0.1, id_, ("q1",)) for id_ in (FIRST, SECOND)),
        replace(one, queue="q1", session="c.1"),
        replace(other, queue="q1", session="d.1"),
    ]

    assert [] == list(judge(events))


def test_an_unmarked_delivery_may_be_late_on_its_way_to_another_client() -> None:
    marked, late = delivered(FIRST, 0.5, redelivered=True), delivered(FIRST, 0.6)
    events: list[Event] = [Publish(0.1, FIRST, ("q0",)), marked, replace(late, session="d.1")]

    assert [] == list(judge(events))
    assert ["unmarked duplicate"] == [
        complaint.split(":")[0] for complaint in judge([*events, replace(late, session="e.1")])
    ]


def test_a_body_tells_whose_it_is_unless_it_is_damaged_or_elsewhere() -> None:
    body = body_of("run", FIRST, ("q0", "q1"), 60)

    assert len(body) == 60
    assert id_of("run", "q1", body) == FIRST
    assert id_of("run", "q2", body) is None
    assert id_of("other", "q1", body) is None
    for at in range(len(body)):
        assert id_of("run", "q1", body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]) is None
    assert id_of("run", "q1", body[:-1]) is None
    assert id_of("run", "q1", b"") is None


def histories(rng: Random) -> tuple[list[Operation], list[Operation]]:
    """A history of three clients of one object, and the same with one answer turned around."""
    is_there = False
    operations = []
    clocks = [0.0, 0.0, 0.0]
    for happens in range(1, 9):
        client = rng.randrange(3)
        began = rng.uniform(clocks[client], happens) if clocks[client] < happens else happens
        ended = clocks[client] = happens + rng.random() * 2
        kind = rng.choice(("declare", "delete", "look", "look"))
        if kind == "look":
            result = "ok" if is_there else "missing"
        else:
            is_there, result = kind == "declare", "ok"
        if rng.random() < 0.1:
            result, ended = "unknown", ENDLESS
        operations.append(Operation(began, ended, str(client), kind, "m", result))
    operations.sort(key=lambda operation: operation.began)
    looks = [
        at for at, one in enumerate(operations) if one.kind == "look" and one.result != "unknown"
    ]
    wrong = list(operations)
    if looks:
        at = rng.choice(looks)
        turned = "missing" if wrong[at].result == "ok" else "ok"
        wrong[at] = replace(wrong[at], result=turned)
    return operations, wrong


def by_force(operations: list[Operation]) -> bool:
    """Whether some order explains all answers; tries all of them."""

    def goes_on(left: frozenset[int], *, is_there: bool) -> bool:
        if all(operations[at].result == "unknown" for at in left):
            return True
        first_end = min(operations[at].ended for at in left)
        for at in left:
            one = operations[at]
            if one.began > first_end:
                continue
            if one.kind == "look":
                if one.result != "unknown" and (one.result == "ok") != is_there:
                    continue
                after = is_there
            else:
                after = one.kind == "declare"
            if goes_on(left - {at}, is_there=after):
                return True
        return False

    return goes_on(frozenset(range(len(operations))), is_there=False)


def test_what_happened_in_some_order_is_explained_and_the_search_misses_nothing() -> None:
    rng = Random(5)
    refused = 0
    for _ in range(300):
        real, wrong = histories(rng)

        assert explain(real) is None
        assert (explain(wrong) is None) == by_force(wrong)
        refused += explain(wrong) is not None
    assert refused > 100
