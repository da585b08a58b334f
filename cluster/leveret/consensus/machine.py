"""The replicated state machine's interface. A machine is total, pure and deterministic."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class Machine(Protocol):
    """State that every member computes from the same entries.

    Total: any command gives a reply, a wrong one too; an exception ends the process.
    Pure: no clock (time is the leader's stamp in the entry), no randomness, no I/O.
    """

    def apply(self, index: int, stamp_ms: int, command: bytes, offset: int) -> object:
        """Apply one command and return the reply for its submitter.

        index: of the log entry that holds the command.
        stamp_ms: the leader's wall clock, never less than an earlier entry's.
        offset: where the command begins in `Group.entry(index)`, in bytes.
        """
        ...

    def snapshot(self) -> bytes:
        """Return the whole state; called between two entries."""
        ...

    def restore(self, state: bytes) -> None:
        """Replace the whole state by what `snapshot` returned."""
        ...

    def live_entries(self) -> Iterable[int]:
        """Give the indexes of entries whose bytes the state still refers to, ascending."""
        ...
