"""The logs of queues that live on one node."""

from __future__ import annotations

from leveret.broker.queues import machine
from leveret.broker.queues.home import SWEEP_BYTES, SWEEP_ENTRIES, AwayLog, HomeLog
from leveret.broker.queues.machine import Effect, Enqueued, Settled
from leveret.broker.queues.seams import UNREACHABLE


def test_the_home_applies_at_once_and_tells_reply_then_effects() -> None:
    told: list[object] = []
    log = HomeLog(7, 1, applied=lambda effects: told.extend(type(e) for e in effects), now_ms=int)

    log.submit(machine.enqueue(7, [b"a", b"bc"]), told.append)

    assert told == ["ok", Enqueued]
    state = log.state(7)
    assert state is not None
    location = state.locate(2)
    assert location is not None
    entry = bytes(log.read(location.entry))
    assert entry[location.offset : location.offset + location.size] == b"bc"


def test_entries_without_live_messages_are_swept() -> None:
    log = HomeLog(7, 1, applied=lambda effects: None, now_ms=int)
    log.submit(machine.enqueue(7, [b"kept"]), lambda _: None)
    for number in range(2, 2 * SWEEP_ENTRIES):
        log.submit(machine.enqueue(7, [b"x"]), lambda _: None)
        log.submit(machine.settle(7, [(number, number)]), lambda _: None)

    assert len(log._entries) <= SWEEP_ENTRIES + 2
    state = log.state(7)
    assert state is not None
    location = state.locate(1)
    assert location is not None
    assert bytes(log.read(location.entry)).endswith(b"kept")


def test_what_is_dead_is_swept_before_it_is_more_than_what_lives() -> None:
    log = HomeLog(7, 1, applied=lambda effects: None, now_ms=int)
    body = bytes(1 << 20)
    live = 6
    for number in range(1, 101):
        log.submit(machine.enqueue(7, [body]), lambda _: None)
        if number > live:
            log.submit(machine.settle(7, [(number - live, number - live)]), lambda _: None)
        live_bytes = (live + 1) * len(body)
        assert log.kept_bytes <= 2 * live_bytes + SWEEP_BYTES + len(body) + 10_000

    assert log.messages == live
    assert log.kept_bytes == sum(map(len, log._entries.values()))


def test_what_is_consumed_is_swept_though_nothing_comes_any_more() -> None:
    log = HomeLog(7, 1, applied=lambda effects: None, now_ms=int)
    count, body = 60, bytes(1 << 20)
    for _ in range(count):
        log.submit(machine.enqueue(7, [body]), lambda _: None)
    for number in range(1, count + 1):
        log.submit(machine.settle(7, [(number, number)]), lambda _: None)

    assert log.kept_bytes <= SWEEP_BYTES + 10_000


def test_large_entries_are_swept_when_the_last_small_message_in_them_is_gone() -> None:
    log = HomeLog(7, 1, applied=lambda effects: None, now_ms=int)
    for _ in range(20):
        log.submit(machine.enqueue(7, [bytes(1 << 20), b"small"]), lambda _: None)
    for number in range(1, 41, 2):
        log.submit(machine.settle(7, [(number, number)]), lambda _: None)
    assert log.kept_bytes > 20 << 20

    for number in range(2, 41, 2):
        log.submit(machine.settle(7, [(number, number)]), lambda _: None)

    assert log.kept_bytes <= SWEEP_BYTES + 10_000


def test_a_submission_from_within_done_is_applied_in_order() -> None:
    seen: list[Effect] = []
    log = HomeLog(7, 1, applied=seen.extend, now_ms=int)

    log.submit(
        machine.enqueue(7, [b"a"]),
        lambda _: log.submit(machine.settle(7, [(1, 1)]), lambda _: None),
    )

    state = log.state(7)
    assert state is not None
    assert state.live == 0
    assert {Enqueued, Settled} == {type(effect) for effect in seen}


def test_away_commands_are_answered_by_the_home() -> None:
    sent: list[tuple[int, tuple[object, ...]]] = []
    replies: list[object] = []

    def send(node: int, body: tuple[object, ...]) -> bool:
        sent.append((node, body))
        return True

    log = AwayLog(2, send, is_up=True)
    log.submit(b"one", replies.append)
    log.submit(b"two", replies.append)

    log.answered(2, "ok")
    log.answered(2, "again")

    assert sent == [(2, ("apply", 1, b"one")), (2, ("apply", 2, b"two"))]
    assert replies == ["ok"]


def test_away_commands_without_a_link_or_with_a_broken_one_are_unreachable() -> None:
    replies: list[object] = []
    log = AwayLog(2, lambda node, body: len(replies) > 0, is_up=False)
    assert log.leader is None
    log.submit(b"one", replies.append)
    assert replies == [UNREACHABLE]

    log.link_changed(is_up=True)
    assert log.leader == 2
    log.submit(b"two", replies.append)
    log.link_changed(is_up=False)

    assert replies == [UNREACHABLE] * 2


def test_the_end_of_the_queue_answers_what_was_under_way_to_its_home() -> None:
    replies: list[object] = []
    log = AwayLog(2, lambda node, body: True, is_up=True)
    log.submit(b"one", replies.append)

    log.dropped()

    assert replies == [machine.GONE]
