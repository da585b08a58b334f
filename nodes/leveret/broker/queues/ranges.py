"""Sequence numbers as ranges. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .state import Range


def to_ranges(sequences: Iterable[int]) -> list[Range]:
    """Return the sequence numbers as ascending ranges without repeats."""
    ranges: list[Range] = []
    low = high = -1
    for sequence in sorted(sequences):
        if sequence == high + 1 and low >= 0:
            high = sequence
        elif sequence != high:
            if low >= 0:
                ranges.append((low, high))
            low = high = sequence
    if low >= 0:
        ranges.append((low, high))
    return ranges
