"""The demonstration's bookkeeping."""

from __future__ import annotations

from leveret.cli.demo import read_body
from leveret.cli.ledger import ConfirmWindow, Ledger, Sending


def fill(window: ConfirmWindow, now: float = 0.0) -> list[Sending]:
    sent = []
    while (sending := window.next(now, is_new_allowed=True)) is not None:
        sent.append(sending)
    return sent


def test_a_full_window_sends_nothing_until_a_confirm() -> None:
    window = ConfirmWindow(3)

    assert [sending.number for sending in fill(window)] == [0, 1, 2]

    assert window.confirm(2, 1.0, multiple=True) == [0, 1]
    assert [sending.number for sending in fill(window)] == [3, 4]


def test_a_single_confirm_is_for_its_message_only() -> None:
    window = ConfirmWindow(3)
    fill(window)

    assert window.confirm(2, 1.0, multiple=False) == [1]
    assert window.confirm(3, 1.0, multiple=True) == [0, 2]
    assert window.is_empty


def test_a_new_connection_sends_the_unconfirmed_again_in_order_before_anything_new() -> None:
    window = ConfirmWindow(4)
    fill(window)
    window.confirm(2, 1.0, multiple=False)

    window.reconnected()

    assert fill(window) == [Sending(0, 1), Sending(2, 1), Sending(3, 1), Sending(4, 0)]
    assert window.confirm(4, 2.0, multiple=True) == [0, 2, 3, 4]


def test_a_refused_message_is_sent_again() -> None:
    window = ConfirmWindow(2)
    fill(window)

    window.refuse(1, multiple=False)

    assert fill(window) == [Sending(0, 1)]


def test_a_producer_that_is_to_end_sends_nothing_new() -> None:
    window = ConfirmWindow(2)

    assert window.next(0.0, is_new_allowed=False) is None
    assert window.published == 0


def test_the_longest_pause_counts_only_while_something_waits_for_a_confirm() -> None:
    window = ConfirmWindow(1)
    fill(window, now=10.0)
    window.confirm(1, 12.0, multiple=False)
    fill(window, now=100.0)
    window.confirm(2, 101.0, multiple=False)

    assert window.note_pause(500.0) == 0.0
    assert window.longest_pause_s == 2.0


def test_a_confirmed_message_is_missing_after_a_while_and_no_longer_when_it_comes() -> None:
    ledger = Ledger()
    ledger.publish(2)
    ledger.confirm([0, 1], now=10.0)
    ledger.receive(0, 0, redelivered=False)

    assert ledger.missing(15.0, after_s=10.0) == []
    assert ledger.missing(21.0, after_s=10.0) == [1]

    ledger.receive(1, 0, redelivered=True)
    assert ledger.missing(21.0, after_s=10.0) == []
    assert (ledger.confirmed, ledger.received, ledger.waiting) == (2, 2, 0)


def test_a_message_received_before_its_confirm_is_heard_of_is_not_missing() -> None:
    ledger = Ledger()
    ledger.receive(0, 0, redelivered=False)
    ledger.publish(1)
    ledger.confirm([0], now=0.0)

    assert ledger.missing(100.0, after_s=0.0) == []
    assert ledger.invented == 0


def test_duplicates_are_told_apart() -> None:
    ledger = Ledger()
    ledger.publish(3)
    for number in range(3):
        ledger.receive(number, 0, redelivered=False)

    ledger.receive(0, 0, redelivered=True)
    ledger.receive(1, 1, redelivered=False)
    ledger.receive(2, 0, redelivered=False)

    assert (ledger.redelivered, ledger.sent_again, ledger.unmarked) == (1, 1, 1)
    assert ledger.received == 3


def test_what_nobody_sent_is_invented() -> None:
    ledger = Ledger()
    ledger.publish(2)
    for number in (0, 1, 2, 7):
        ledger.receive(number, 0, redelivered=False)
    ledger.unreadable += 1

    assert ledger.invented == 3


def test_a_body_tells_its_number_and_attempt() -> None:
    assert read_body(b'["run", 7, 1]', "run") == (7, 1)


def test_a_body_of_another_run_is_foreign_and_rubbish_is_rubbish() -> None:
    assert read_body(b'["other", 7, 1]', "run") == (-1, 0)
    for rubbish in (b"", b"\xff", b"3", b'["run"]', b'["run", -1, 0]', b'["run", "7", 0]'):
        assert read_body(rubbish, "run") == (-2, 0)
