"""A group's snapshot as bytes: its state, and which entries of the log it still refers to. Pure.

`<BQI` version, stamp in ms, bytes of the configuration; the configuration; the sessions; `<Q`
count and the indexes of the live entries, `<Q` each; the rest is the machine's state. Bodies of
messages are not in it: they stay in the log's segments, under the indexes that are listed.
"""

from __future__ import annotations

import struct
import sys
from array import array
from dataclasses import dataclass

from leveret.consensus.errors import BadEntry, BadSnapshot
from leveret.consensus.membership import (
    Configuration,
    decode_configuration,
    encode_configuration,
)
from leveret.consensus.sessions import SessionTable

VERSION = 2
_HEAD = struct.Struct("<BQI")
_COUNT = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Manifest:
    """The state of a group behind one entry.

    stamp_ms: of that entry.
    live: indexes of the entries whose bytes the machine refers to, ascending.
    """

    stamp_ms: int
    configuration: Configuration
    sessions: SessionTable
    live: array[int]
    machine: bytes

    def encode(self) -> bytes:
        """Return it as bytes; equal states give equal bytes."""
        configuration = encode_configuration(self.configuration)
        return b"".join(
            (
                _HEAD.pack(VERSION, self.stamp_ms, len(configuration)),
                configuration,
                self.sessions.encode(),
                _COUNT.pack(len(self.live)),
                _little(self.live).tobytes(),
                self.machine,
            )
        )

    @classmethod
    def decode(cls, state: bytes) -> Manifest:
        """Return what `encode` made.

        Raises:
            BadSnapshot: another version, or bytes that do not add up.
        """
        try:
            version, stamp_ms, size = _HEAD.unpack_from(state)
            if version != VERSION:
                raise BadSnapshot(f"snapshot version {version}, this program reads {VERSION}")
            offset = _HEAD.size + size
            configuration = decode_configuration(state[_HEAD.size : offset])
            sessions, offset = SessionTable.decode(state, offset)
            (count,) = _COUNT.unpack_from(state, offset)
        except (struct.error, BadEntry) as error:
            raise BadSnapshot("a snapshot that ends within its head") from error
        offset += _COUNT.size
        end = offset + count * _COUNT.size
        if end > len(state):
            raise BadSnapshot("a snapshot that ends within its live entries")
        live = array("Q")
        live.frombytes(state[offset:end])
        return cls(stamp_ms, configuration, sessions, _little(live), state[end:])


def _little(numbers: array[int]) -> array[int]:
    if sys.byteorder == "big":
        numbers = numbers[:]
        numbers.byteswap()
    return numbers
