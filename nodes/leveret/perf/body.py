"""The bodies of our messages: who sent it as which of its messages, when, and octets by a seed."""

from __future__ import annotations

from random import Random
from struct import Struct
from typing import Final, NamedTuple

import xxhash

_HEAD: Final = Struct(">4sIIQQ")
_SUM: Final = Struct(">I")
_MAGIC: Final = b"LvPf"
SIZE_MIN: Final = _HEAD.size + _SUM.size
"""Octets that a message has at least."""
_SPAN: Final = 251
"""Messages of a producer with different octets before they come again."""


class Stamp(NamedTuple):
    """What a body says of itself."""

    run: int
    producer: int
    sequence: int
    sent_at_ns: int


class Bodies:
    """Makes the bodies of one producer, each of `size_bytes`, the same for the same seed.

    has_checksum: it is zero otherwise, which is faster.
    """

    def __init__(
        self, *, run: int, producer: int, size_bytes: int, seed: int, has_checksum: bool
    ) -> None:
        assert size_bytes >= SIZE_MIN
        self._run = run
        self._producer = producer
        self._filler_size = size_bytes - SIZE_MIN
        # The seed of each producer differs, and does not depend on Python's hash of anything.
        rng = Random((seed << 32) + producer)  # noqa: S311 - to be the same again
        self._octets = rng.randbytes(self._filler_size + _SPAN)
        self._has_checksum = has_checksum

    def make(self, sequence: int, sent_at_ns: int) -> bytes:
        """The body of message number `sequence`, from 0, sent at a time of the wall clock."""
        start = sequence % _SPAN
        filler = self._octets[start : start + self._filler_size]
        head = _HEAD.pack(_MAGIC, self._run, self._producer, sequence, sent_at_ns)
        checksum = xxhash.xxh32_intdigest(head + filler) if self._has_checksum else 0
        return b"".join((head, _SUM.pack(checksum), filler))


def stamp_of(body: bytes) -> Stamp | None:
    """What a body says of itself; None if it is none of ours."""
    if len(body) < SIZE_MIN:
        return None
    magic, run, producer, sequence, sent_at_ns = _HEAD.unpack_from(body)
    return Stamp(run, producer, sequence, sent_at_ns) if magic == _MAGIC else None


def is_intact(body: bytes) -> bool:
    """Whether a body of ours, made with a checksum, has all of its octets."""
    (checksum,) = _SUM.unpack_from(body, _HEAD.size)
    head, filler = body[: _HEAD.size], body[SIZE_MIN:]
    found = xxhash.xxh32_intdigest(head + filler)
    return bool(found == checksum)
