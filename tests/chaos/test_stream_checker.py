"""The checker of streams finds each planted mistake, and nothing in a history without one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from chaos.checkers.streams import streams
from chaos.history import (
    CaughtUp,
    Event,
    Fault,
    Following,
    MessageId,
    Outcome,
    Publish,
    Read,
    Recovered,
    Settle,
    StreamDeclared,
)
from chaos.simulation.scenario import judge

MESSAGES = tuple(MessageId("p", 1, number) for number in range(1, 7))
"""The message of each offset; the last one was never answered for."""
END = len(MESSAGES)
SIZE = 1_000


def read(session: str, offset: int, t: float, *, id_: MessageId | None = None) -> Read:
    return Read(t, "s", session, offset, id_ or MESSAGES[offset], SIZE, offset)


def reading(
    session: str,
    start: str | int,
    offsets: range,
    *,
    asked: float,
    is_caught_up: bool = False,
    prefetch: int = 2,
) -> list[Event]:
    """A session that begins at `asked`, reads these offsets and acknowledges all of them."""
    events: list[Event] = [Following(asked + 0.1, "s", session, start, prefetch, asked)]
    for offset in offsets:
        at = asked + 0.2 + offset / 100
        events += [read(session, offset, at), Settle(at, "s", session, offset, "ack")]
    return [*events, *([CaughtUp(asked + 1, "s", session)] if is_caught_up else [])]


def published(*numbers: int, t: float) -> list[Event]:
    """Publishes to the stream, confirmed a moment later but for the last message of all."""
    events: list[Event] = []
    for number in numbers:
        id_ = MESSAGES[number]
        events.append(Publish(t, id_, ("s",)))
        if number < END - 1:
            events.append(Outcome(t + 0.1, id_, "ok"))
    return events


def clean(*, max_bytes: int | None = None) -> list[Event]:
    """Two messages, readers of all kinds, four messages more; then all of it, after the faults."""
    return [
        StreamDeclared(0, "s", max_bytes),
        *published(0, 1, t=1.0),
        *reading("first.1", "first", range(2), asked=2.0),
        *reading("next.1", "next", range(2, END), asked=2.0),
        *reading("last.1", "last", range(1, 3), asked=2.0),
        *reading("number.1", 3, range(3, 5), asked=2.0),
        *published(2, 3, 4, 5, t=3.0),
        Fault(2.0, 5.0, "kill", (1,)),
        Recovered(6.0, 1, "s", 1.0),
        *reading("whole.1", "first", range(END), asked=7.0, is_caught_up=True),
        *reading("behind.1", "next", range(0), asked=7.0, is_caught_up=True),
    ]


def limited() -> list[Event]:
    """The clean history of a stream that has ended the offsets 0 to 2 by its limit."""
    return [
        replace(event, max_bytes=3 * SIZE + 200) if isinstance(event, StreamDeclared) else event
        for event in clean()
        if not (isinstance(event, Read | Settle) and event.session == "whole.1" and event.tag < 3)
    ]


def without(unwanted: Callable[[Event], bool]) -> list[Event]:
    return [event for event in clean() if not unwanted(event)]


def is_read(session: str, offset: int) -> Callable[[Event], bool]:
    return lambda event: (
        isinstance(event, Read) and (event.session, event.offset) == (session, offset)
    )


def changed(which: Callable[[Event], bool], **values: object) -> list[Event]:
    return [
        replace(event, **values) if which(event) else event  # type: ignore[arg-type]
        for event in clean()
    ]


def kinds(events: list[Event]) -> list[str]:
    return [complaint.split(":")[0] for complaint in streams(events)]


@pytest.mark.parametrize("events", [clean(), limited()])
def test_a_clean_history_has_no_complaint(events: list[Event]) -> None:
    assert [] == list(streams(events))
    assert [] == list(judge(events))


def exchanged() -> list[Event]:
    """The clean history, but the messages of the offsets 3 and 4 stand in the other order."""
    other = {3: MESSAGES[4], 4: MESSAGES[3]}
    return [
        replace(event, id=other[event.offset])
        if isinstance(event, Read) and event.offset in other
        else event
        for event in clean()
    ]


def stored_twice() -> list[Event]:
    """The clean history, but the last message is the one before it again."""
    return [
        replace(event, id=MESSAGES[4]) if isinstance(event, Read) and event.offset == 5 else event
        for event in clean()
    ]


def is_whole(event: Event) -> bool:
    return isinstance(event, Following | Read | Settle | CaughtUp) and event.session == "whole.1"


def unread() -> list[Event]:
    """A message that was confirmed, and that nobody ever read."""
    id_ = MessageId("q", 1, 1)
    return [Publish(4.0, id_, ("s",)), Outcome(4.1, id_, "ok")]


@pytest.mark.parametrize(
    ("word", "events"),
    [
        ("stream phantom", changed(is_read("number.1", 4), id=None)),
        ("stream phantom", without(lambda e: isinstance(e, Publish) and e.id == MESSAGES[5])),
        ("stream changed", changed(is_read("number.1", 4), id=MESSAGES[3])),
        ("stream twice", stored_twice()),
        ("stream order", exchanged()),
        ("stream start", without(is_read("first.1", 0))),
        ("stream start", without(is_read("number.1", 3))),
        ("stream start", without(is_read("next.1", 2))),
        ("stream start", [*clean(), *reading("behind.2", "next", range(1, 2), asked=9.0)]),
        ("stream start", [*clean(), *reading("number.2", 4, range(3, 5), asked=9.0)]),
        ("stream gap", without(is_read("next.1", 4))),
        ("stream gap", [*clean(), read("number.1", 4, 9.0)]),
        ("stream gap", [*clean(), read("number.1", 2, 9.0)]),
        (
            "stream stuck",
            [*clean(), *reading("first.2", "first", range(5), asked=9.0, is_caught_up=True)],
        ),
        (
            "stream stuck",
            [*clean(), *reading("last.2", "last", range(0), asked=9.0, is_caught_up=True)],
        ),
        (
            "stream stuck",
            [*clean(), *reading("number.2", 5, range(0), asked=9.0, is_caught_up=True)],
        ),
        ("stream prefetch", without(lambda e: isinstance(e, Settle) and e.session == "next.1")),
        ("stream lost", without(is_whole)),
        ("stream lost", [*clean(), *unread()]),
        ("stream limit", [StreamDeclared(0, "s", END * SIZE - 1), *clean()[1:]]),
        ("stream limit", [StreamDeclared(0, "s", 4 * SIZE + 400), *limited()[1:]]),
    ],
)
def test_a_planted_mistake_is_found(word: str, events: list[Event]) -> None:
    assert {word} == set(kinds(events))


def test_a_slow_reader_may_miss_what_the_limit_ended_and_no_more() -> None:
    def slow(offset: int) -> list[Event]:
        behind = read("slow.1", offset, 9.0)
        return [*limited(), *reading("slow.1", "first", range(1), asked=2.0), behind]

    assert [] == kinds(slow(3))
    assert ["stream gap"] == kinds(slow(4))


def test_what_the_limit_ended_before_anybody_saw_it_is_not_lost() -> None:
    """Offset 2 is ended, and only readers that are left out here have seen it."""
    events = [
        event
        for event in limited()
        if not (
            isinstance(event, Following | Read | Settle | CaughtUp)
            and event.session in {"next.1", "last.1"}
        )
    ]

    assert [] == kinds(events)
    assert ["stream lost"] == kinds([*events, *unread()])
