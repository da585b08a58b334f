"""The bytes that all clients of a node together may have under way.

Each connection has a limit of its own, which ten thousand connections would multiply.  Counted
here is what was read of publishers and is not with the queues yet: octets on their way to the
connection's actor, messages that are not whole yet by the size that they announced, messages
behind an operation, and messages on their way to a disk.
"""

from __future__ import annotations

from typing import Final

import trio

BYTES_MAX: Final = 256 << 20
"""The default of `limits.in_flight_bytes_total`."""


class Budget:
    """See the module; publishers wait from the limit on until a quarter is free again."""

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self.bytes_max = bytes_max
        self.used_bytes = 0
        self.held_bytes = 0
        """In transactions, besides: whoever waits for a commit must be read on."""
        self._room = trio.Event()
        self._room.set()

    @property
    def is_spent(self) -> bool:
        """Whether publishers wait."""
        return not self._room.is_set()

    def take(self, size_bytes: int) -> None:
        """Count bytes that are here; always possible, for they are."""
        self.used_bytes += size_bytes
        if self.used_bytes >= self.bytes_max and self._room.is_set():
            self._room = trio.Event()

    def give(self, size_bytes: int) -> None:
        """Count bytes that are gone."""
        self.used_bytes -= size_bytes
        if self.used_bytes <= self.bytes_max - self.bytes_max // 4:
            self._room.set()

    async def room(self) -> None:
        """Wait until it is not spent, or was not for a moment: others may be quicker."""
        await self._room.wait()
