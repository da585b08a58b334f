"""What a run proved: compares what was confirmed with what came out. Pure; no input or output."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Delivery = tuple[int, bool]
"""A message's number, and whether it was marked redelivered."""


@dataclass(frozen=True)
class Verdict:
    """Message numbers by what went wrong with them.

    confirmed: how many messages were confirmed.
    delivered: how many different messages came out.
    lost: confirmed, but never delivered.
    phantoms: delivered, but never published.
    duplicates: delivered again without the mark.
    disordered: delivered for the first time, unmarked, behind one that was published later.
    redelivered: how many deliveries were marked; nothing is wrong with them.
    """

    confirmed: int
    delivered: int
    lost: tuple[int, ...]
    phantoms: tuple[int, ...]
    duplicates: tuple[int, ...]
    disordered: tuple[int, ...]
    redelivered: int

    @property
    def is_clean(self) -> bool:
        """Whether every promise was kept."""
        return not (self.lost or self.phantoms or self.duplicates or self.disordered)

    def __str__(self) -> str:
        """Return the counts in one line."""
        return (
            f"confirmed={self.confirmed} delivered={self.delivered} lost={len(self.lost)}"
            f" duplicates={len(self.duplicates)}+{self.redelivered}"
            f" disordered={len(self.disordered)} phantoms={len(self.phantoms)}"
        )


def judge(published: int, confirmed: Iterable[int], deliveries: Sequence[Delivery]) -> Verdict:
    """Compare one publisher's stream with all that its queue's consumers got.

    published: the messages 0 to `published` - 1 were sent, in this order.
    confirmed: those of them that the broker answered for.
    deliveries: in the order in which they came, to one consumer at a time.
    """
    sure = set(confirmed)
    seen: set[int] = set()
    duplicates: list[int] = []
    disordered: list[int] = []
    newest = -1
    for number, is_marked in deliveries:
        if not is_marked:
            if number in seen:
                duplicates.append(number)
            elif number < newest:
                disordered.append(number)
            newest = max(newest, number)
        seen.add(number)
    return Verdict(
        confirmed=len(sure),
        delivered=len(seen),
        lost=tuple(sorted(sure - seen)),
        phantoms=tuple(sorted(number for number in seen if not 0 <= number < published)),
        duplicates=tuple(duplicates),
        disordered=tuple(disordered),
        redelivered=sum(is_marked for _, is_marked in deliveries),
    )
