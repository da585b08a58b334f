"""The demonstration's bookkeeping: what was published, confirmed, received. Pure.

`ConfirmWindow` is the producer's side, one connection after another; `Ledger` is the judge's,
who hears of both the producer and the consumer, in any order between the two.
Numbers are the messages' own, from 0 without gaps; times are seconds of one monotonic clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple


class Sending(NamedTuple):
    """One publish: the message's number, and how often it was sent before."""

    number: int
    attempt: int


class ConfirmWindow:
    """Which messages are sent and not confirmed, at most `size` of them.

    After a new connection everything unconfirmed is sent again, before anything new.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.published = 0
        """How many different messages were sent; the next new one has this number."""
        self.longest_pause_s = 0.0
        """The longest time that unconfirmed messages waited for any confirm."""
        self._unconfirmed: dict[int, int] = {}  # number: attempts so far
        self._again: deque[int] = deque()
        self._by_tag: dict[int, int] = {}  # of this connection, ascending
        self._last_tag = 0
        self._waiting_since: float | None = None

    @property
    def is_empty(self) -> bool:
        return not self._unconfirmed

    def reconnected(self) -> None:
        """Begin a new connection: its tags start at 1, and nothing is confirmed on it yet."""
        self._by_tag.clear()
        self._last_tag = 0
        self._again = deque(sorted(self._unconfirmed))

    def next(self, now: float, *, is_new_allowed: bool) -> Sending | None:
        """Return what to send next, or None when the window is full or nothing may be new."""
        if self._again:
            number = self._again.popleft()
            attempt = self._unconfirmed[number]
        elif is_new_allowed and len(self._unconfirmed) < self.size:
            number, attempt = self.published, 0
            self.published += 1
            if not self._unconfirmed:
                self._waiting_since = now
        else:
            return None
        self._unconfirmed[number] = attempt + 1
        self._last_tag += 1
        self._by_tag[self._last_tag] = number
        return Sending(number, attempt)

    def confirm(self, tag: int, now: float, *, multiple: bool) -> list[int]:
        """Take a confirm; return the numbers of the messages that it is for."""
        numbers = self._take(tag, multiple=multiple)
        for number in numbers:
            del self._unconfirmed[number]
        self.note_pause(now)
        self._waiting_since = now if self._unconfirmed else None
        return numbers

    def refuse(self, tag: int, *, multiple: bool) -> None:
        """Take a negative confirm: the messages are sent again."""
        self._again.extend(self._take(tag, multiple=multiple))

    def note_pause(self, now: float) -> float:
        """Return how long confirms have been missing now; remembers the longest."""
        pause = 0.0 if self._waiting_since is None else now - self._waiting_since
        self.longest_pause_s = max(self.longest_pause_s, pause)
        return pause

    def _take(self, tag: int, *, multiple: bool) -> list[int]:
        tags = [tag]
        if multiple:
            tags = []
            for older in self._by_tag:
                if older > tag:
                    break
                tags.append(older)
        return [self._by_tag.pop(one) for one in tags if one in self._by_tag]


class Ledger:
    """What became of each message, and whether the broker's promise held."""

    def __init__(self) -> None:
        self.published = 0
        self.confirmed = 0
        self.received = 0
        """Different messages that the consumer got."""
        self.redelivered = 0
        """Duplicates that the broker marked as such."""
        self.sent_again = 0
        """Duplicates that the producer made: the confirm of the first was lost with a node."""
        self.unmarked = 0
        """Duplicates that the broker made and did not mark."""
        self.foreign = 0
        """Messages of an earlier demonstration, left in the queue."""
        self.unreadable = 0
        """Bodies that nobody sent so."""
        self.longest_pause_s = 0.0
        self._all_below = 0  # every number below was received
        self._above: set[int] = set()  # those received besides
        self._repeated: set[int] = set()  # received in a copy that was not the first attempt
        self._waiting: dict[int, float] = {}  # confirmed at, not received; oldest first

    def publish(self, published: int) -> None:
        """Note that the messages below number `published` were sent."""
        self.published = max(self.published, published)

    def confirm(self, numbers: Iterable[int], now: float) -> None:
        """Note that the broker confirmed messages; each comes here once."""
        for number in numbers:
            self.confirmed += 1
            if not self._was_received(number):
                self._waiting[number] = now

    def receive(self, number: int, attempt: int, *, redelivered: bool) -> None:
        """Note that the consumer got a message."""
        if attempt:
            self._repeated.add(number)
        if not self._was_received(number):
            self.received += 1
            self._waiting.pop(number, None)
            self._above.add(number)
            while self._all_below in self._above:
                self._above.discard(self._all_below)
                self._all_below += 1
        elif redelivered:
            self.redelivered += 1
        elif number in self._repeated:
            self.sent_again += 1
        else:
            self.unmarked += 1

    @property
    def waiting(self) -> int:
        """How many messages are confirmed and not received yet."""
        return len(self._waiting)

    def missing(self, now: float, *, after_s: float) -> list[int]:
        """Return the messages confirmed more than `after_s` ago and still not received."""
        found = []
        for number, since in self._waiting.items():
            if now - since < after_s:
                break
            found.append(number)
        return found

    @property
    def invented(self) -> int:
        """How many messages came that nobody sent; true once the producer has told its end."""
        numbers = sum(1 for number in self._above if number >= self.published)
        return numbers + max(0, self._all_below - self.published) + self.unreadable

    def _was_received(self, number: int) -> bool:
        return number < self._all_below or number in self._above
