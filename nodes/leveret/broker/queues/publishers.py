"""Which numbers of which publishers a queue has stored, so that each is stored once. Pure.

A publisher that numbers its messages gives what it sends again the number of the first time.
Repeats come late, over another node, and mixed with what follows them: a node may still be
handing in what a lost connection had sent while the next connection sends it again.

The last number alone would not do.  Of a publisher's messages some go to other queues, so a queue
cannot tell a number that it has from one that was meant for another queue, never got there, and
is routed here when it comes again.  It would be confirmed and stored nowhere.  So the numbers
themselves are kept, as ranges: one range for a publisher that uses one queue.

Spec: docs/decisions/0011-publishers-number-their-messages.md.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    Stretch = tuple[int, int]
    """Numbers or positions from the first to the last, the last excluded."""

PUBLISHERS_MAX: Final = 4_096
"""Publishers that a queue remembers; beyond it those that were silent for longest are forgotten."""

SILENCE_MAX_MS: Final = 24 * 3_600_000
"""A publisher of which nothing came to the queue for so long is forgotten."""

RANGES_MAX: Final = 1_024
"""Ranges of one publisher; beyond it the lowest gap counts as stored.

Only a publisher that spreads its messages over queues has more than a few.  Below the gaps that
are kept it is the order of its messages that tells repeats.
"""


class Numbers:
    """The numbers of one publisher's messages that a queue has stored."""

    __slots__ = ("bounds", "stamp_ms")

    def __init__(self, stamp_ms: int, bounds: Iterable[int] = ()) -> None:
        self.stamp_ms = stamp_ms
        """When something of it came last."""
        self.bounds = array("Q", bounds)
        """Ascending, without equals: where a range begins, where it ends (excluded), and so on."""

    def add(self, first: int, stop: int) -> list[Stretch]:
        """Note the numbers from `first` to `stop` (excluded); return those that are new."""
        bounds = self.bounds
        if bounds and first == bounds[-1]:
            bounds[-1] = stop
            return [(first, stop)]
        # A bound at an even place begins a range, so what lies before it is in no range.
        begin, end = bisect_left(bounds, first), bisect_right(bounds, stop)
        begins_new, ends_new = begin % 2 == 0, end % 2 == 0
        within = bounds[begin:end].tolist()
        cuts = [*([first] if begins_new else []), *within, *([stop] if ends_new else [])]
        bounds[begin:end] = array(
            "Q", [*([first] if begins_new else []), *([stop] if ends_new else [])]
        )
        if len(bounds) > 2 * RANGES_MAX:
            del bounds[1:3]
        return [pair for pair in zip(cuts[::2], cuts[1::2], strict=True) if pair[0] < pair[1]]


class Publishers:
    """The publishers of one queue, the one that was silent for longest first."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: OrderedDict[str, Numbers] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def add(self, publisher: str, first: int, stop: int, stamp_ms: int) -> list[Stretch]:
        """Note numbers of `publisher`, see `Numbers.add`; forget who is to be forgotten."""
        numbers = self._known.get(publisher)
        if numbers is None:
            numbers = self._known[publisher] = Numbers(stamp_ms)
        else:
            numbers.stamp_ms = stamp_ms
            self._known.move_to_end(publisher)
        new = numbers.add(first, stop)
        while (
            len(self._known) > PUBLISHERS_MAX
            or next(iter(self._known.values())).stamp_ms < stamp_ms - SILENCE_MAX_MS
        ):
            self._known.popitem(last=False)
        return new

    def to_wire(self) -> list[object]:
        """Return the state as plain values for a snapshot; equal states give equal values."""
        return [
            [publisher, numbers.stamp_ms, numbers.bounds.tolist()]
            for publisher, numbers in self._known.items()
        ]

    @classmethod
    def from_wire(cls, wire: Iterable[tuple[str, int, Iterable[int]]]) -> Publishers:
        """Rebuild the state that `to_wire` gave."""
        publishers = cls()
        for publisher, stamp_ms, bounds in wire:
            publishers._known[publisher] = Numbers(stamp_ms, bounds)
        return publishers
