"""From one queue into another one of the same shard, in one entry of the log. Pure.

The bytes stay in the log entry that brought them: both queues are of one log.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from .ranges import to_ranges

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .incoming import Limit
    from .state import Columns, QueueState, Range


def move_messages(
    source: QueueState,
    target: QueueState,
    ranges: Iterable[Range],
    traits: Columns,
    limit: Limit,
) -> list[Range]:
    """Append live messages of `source` to `target` until that is full; return which.

    traits: a value for each message in `ranges`, alive or not. They are not ended in `source`.
    """
    count_max, bytes_max = limit
    bodies = traits.get("body")
    moved: list[int] = []
    at = -1
    for low, high in ranges:
        for sequence in range(low, high + 1):
            at += 1
            location = source.locate(sequence)
            if location is None:
                continue
            body = 0 if bodies is None else bodies[at]
            if (count_max is not None and target.live - target.spared + 1 > count_max) or (
                bytes_max is not None and target.body_bytes - target.spared_bytes + body > bytes_max
            ):
                return to_ranges(moved)
            target.append(
                location.entry,
                location.offset,
                array("I", [location.size]),
                {trait: column[at : at + 1] for trait, column in traits.items()},
            )
            moved.append(sequence)
    return to_ranges(moved)
