"""How long to wait before the next attempt: exponential, with jitter, so that clients spread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from random import Random

FIRST_S: Final = 0.05
LAST_S: Final = 10.0


class Backoff:
    """Delays that double from `first_s` to `last_s`; each is drawn from its upper half.

    Example:
        >>> from random import Random
        >>> backoff = Backoff(Random(1), first_s=1, last_s=8)
        >>> delays = [backoff.next() for _ in range(5)]
        >>> all(top / 2 <= delay <= top for delay, top in zip(delays, [1, 2, 4, 8, 8]))
        True
    """

    def __init__(self, rng: Random, *, first_s: float = FIRST_S, last_s: float = LAST_S) -> None:
        self._rng = rng
        self._first_s = first_s
        self._last_s = last_s
        self._next_s = first_s

    def next(self) -> float:
        """The next delay, in seconds."""
        top, self._next_s = self._next_s, min(self._next_s * 2, self._last_s)
        return top * (0.5 + self._rng.random() / 2)

    def reset(self) -> None:
        """Begin with `first_s` again: something worked."""
        self._next_s = self._first_s
