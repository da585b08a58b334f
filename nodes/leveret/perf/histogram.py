"""How often which duration was seen, in little space: buckets whose width grows with the value.

As in HdrHistogram: 64 buckets an octave, so that a value is told to within 1.6 %, whatever its
size, and a million of them take no more room than some hundred numbers.
"""

from __future__ import annotations

from typing import Final

import msgspec

_BITS: Final = 6
"""A bucket above 2^7 is 2^-6 of its value wide."""


class Histogram(msgspec.Struct):
    """Durations in microseconds.

    Example:
        >>> histogram = Histogram()
        >>> for us in range(1, 1001):
        ...     histogram.record(us)
        >>> histogram.percentile_us(50), histogram.max_us, histogram.count
        (499, 1000, 1000)
    """

    buckets: dict[int, int] = {}
    """Values by bucket, see `_bucket`."""
    count: int = 0
    sum_us: int = 0
    max_us: int = 0

    def record(self, us: int) -> None:
        """Count one duration; a negative one, of clocks that differ, is none at all."""
        if us < 0:  # noqa: PLR1730 - see below
            us = 0
        shift = us.bit_length() - _BITS - 1
        bucket = us if shift <= 0 else (shift << _BITS) + (us >> shift)
        buckets = self.buckets
        buckets[bucket] = buckets.get(bucket, 0) + 1
        self.count += 1
        self.sum_us += us
        if us > self.max_us:  # noqa: PLR1730 - half the cost of max(), for each message
            self.max_us = us

    def add(self, other: Histogram) -> None:
        """Count all that `other` counted."""
        for bucket, count in other.buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + count
        self.count += other.count
        self.sum_us += other.sum_us
        self.max_us = max(self.max_us, other.max_us)

    def percentile_us(self, percent: float) -> int:
        """The duration that `percent` of all do not exceed, 0 if there are none."""
        wanted = self.count * percent / 100
        seen = 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= wanted:
                return min(_middle_us(bucket), self.max_us)
        return self.max_us

    @property
    def mean_us(self) -> float:
        """The arithmetic mean, 0 if there are none."""
        return self.sum_us / self.count if self.count else 0.0


def _middle_us(bucket: int) -> int:
    """The middle of a bucket, rounded down."""
    shift = (bucket >> _BITS) - 1
    if shift <= 0:
        return bucket
    low = (bucket - (shift << _BITS)) << shift
    return low + (1 << shift >> 1)
