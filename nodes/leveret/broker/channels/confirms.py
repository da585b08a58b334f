"""Publisher confirms of one channel: what is done, told in as few frames as possible. Pure."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import NamedTuple


class Confirm(NamedTuple):
    """One basic.ack or basic.nack to the publisher."""

    tag: int
    multiple: bool
    refused: bool


class Confirms:
    """Collects the outcomes of numbered messages; `take` gives the frames to send.

    Runs of acknowledged messages that begin at the lowest open number become one frame with
    `multiple`.  What is done out of order, and what is refused, gets a frame a message:
    `multiple` would speak for open ones, too.
    """

    __slots__ = ("_done", "_early", "_next", "_singles", "issued")

    def __init__(self) -> None:
        self.issued = 0
        """The number of the last message that came in."""
        self._next = 1
        """The lowest number without an outcome."""
        self._done: list[tuple[int, int]] = []
        """A heap of acknowledged ranges (first, last) that wait to be told."""
        self._singles: list[Confirm] = []
        self._early: list[tuple[int, int]] = []
        """A heap of ranges above `_next` that were told already."""

    def done(self, first: int, count: int, *, refused: bool) -> None:
        """Note the outcome of `count` messages from number `first`."""
        last = first + count - 1
        if refused:
            self._singles += [
                Confirm(tag, multiple=False, refused=True) for tag in range(first, last + 1)
            ]
            heappush(self._early, (first, last))
        else:
            heappush(self._done, (first, last))

    def take(self) -> list[Confirm]:
        """Return what to tell the publisher now."""
        frames, self._singles = self._singles, []
        told, acknowledged = self._next - 1, 0
        while True:
            if self._done and self._done[0][0] == self._next:
                acknowledged = heappop(self._done)[1]
                self._next = acknowledged + 1
            elif self._early and self._early[0][0] == self._next:
                # Told before; a frame that spans it says nothing new about it.
                self._next = heappop(self._early)[1] + 1
            else:
                break
        if acknowledged:
            frames.append(Confirm(acknowledged, multiple=acknowledged > told + 1, refused=False))
        while self._done:
            first, last = heappop(self._done)
            frames += [
                Confirm(tag, multiple=False, refused=False) for tag in range(first, last + 1)
            ]
            heappush(self._early, (first, last))
        return frames
