"""Recent commands, bounded in bytes and shared by all groups."""

from __future__ import annotations

from collections import OrderedDict

# What an entry costs beside its bytes: the bytes object's header, the key, the ordered slot.
_OVERHEAD_BYTES = 200


class CommandCache:
    """Commands by where they lie on disk; the oldest ones go first.

    Keyed by position, which is written once and never again, so nothing ever needs to be
    invalidated: what a log cut off is simply never asked for and ages out.
    Age is that of the append (or of the read that brought it back), not of the last use:
    consumers read in the order of the appends, and a hit then costs one look-up.
    """

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.bytes = 0
        self._commands: OrderedDict[int, bytes] = OrderedDict()

    def get(self, segment: int, offset: int) -> bytes | None:
        """Return the command of the record at `offset` of `segment`, if it is here."""
        return self._commands.get(segment << 32 | offset)

    def put(self, segment: int, offset: int, command: bytes) -> None:
        """Remember a command; forget the oldest ones beyond the bound.

        The newest stays, however large: each member is about to be sent it.
        """
        key = segment << 32 | offset
        if key in self._commands:
            return
        self._commands[key] = command
        self.bytes += len(command) + _OVERHEAD_BYTES
        while self.bytes > self.bytes_max and len(self._commands) > 1:
            _, oldest = self._commands.popitem(last=False)
            self.bytes -= len(oldest) + _OVERHEAD_BYTES
