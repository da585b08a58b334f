"""One incarnation of a channel: from channel.open to its end, with what it has to settle.

Delivery tags count from 1 in each incarnation, so a message can be settled only within its own.
Acknowledgements are gathered and leave as few frames: a run that begins at the lowest open tag is
one `basic.ack` with `multiple`; one that does not is a frame a message, since `multiple` would
speak for open ones too.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

_ACK: Final = Struct(">BHIIQBB").pack
_ACK_SIZE: Final = 13
_ACK_ID: Final = 60 << 16 | 80
_END: Final = 0xCE


class Life:
    """The settled and unsettled deliveries of one incarnation of channel `number`."""

    __slots__ = ("_collapses", "_early", "_low", "_number", "acks", "is_over", "settled")

    def __init__(self, number: int, *, collapses: bool = True) -> None:
        """Without `collapses` each has its frame: a transaction may undo some of them."""
        self._collapses = collapses
        self.is_over = False
        self.acks: list[int] = []
        """Tags that are acknowledged and not told yet, in the order of the calls."""
        self.settled = 0
        """How many deliveries were settled."""
        self._number = number
        self._low = 1
        """The lowest tag that is not settled."""
        self._early: set[int] = set()
        """Tags above `_low` that are settled and told."""

    def is_past(self, tag: int) -> bool:
        """Whether a frame with `multiple` has settled this delivery already."""
        return tag < self._low or tag in self._early

    def skip(self, tag: int) -> None:
        """Count a delivery as settled that needs no word: it came with no_ack, or was rejected."""
        self.settled += 1
        if not self._collapses:
            return
        if tag == self._low:
            self._low += 1
            self._advance()
        else:
            self._early.add(tag)

    def skip_through(self, tag: int) -> None:
        """Count all deliveries up to `tag` as settled, by a frame that says `multiple`."""
        if tag >= self._low:
            self._low = tag + 1
            self._early = {early for early in self._early if early > tag}
            self._advance()

    def write_acks(self, out: list[bytes]) -> None:
        """Append the frames for the gathered acknowledgements to `out`."""
        acks = self.acks
        if not acks:
            return
        self.acks = []
        self.settled += len(acks)
        acks.sort()
        number, low = self._number, self._low
        if not self._collapses:
            out += [_ACK(1, number, _ACK_SIZE, _ACK_ID, tag, 0, _END) for tag in acks]
            return
        early = self._early
        last = told = 0
        for position, tag in enumerate(acks):
            while early and low in early:
                early.discard(low)
                low += 1
            if tag < low:
                continue
            if tag != low:
                rest = acks[position:]
                out += [_ACK(1, number, _ACK_SIZE, _ACK_ID, one, 0, _END) for one in rest]
                early.update(rest)
                break
            last = tag
            told += 1
            low += 1
        if told:
            # In front of the single ones it would be the same; the order says nothing.
            out.append(_ACK(1, number, _ACK_SIZE, _ACK_ID, last, told > 1, _END))
        self._low = low
        self._advance()

    def _advance(self) -> None:
        early = self._early
        while early and self._low in early:
            early.discard(self._low)
            self._low += 1
