"""What can go wrong in storage, by what the caller can do about it."""

from __future__ import annotations


class StorageError(Exception):
    """Base of this package's errors."""


class SyncFailed(StorageError):
    """The disk did not take what was written: end the process, never retry.

    After a failed fsync Linux marks the dirty pages clean, so that a second fsync succeeds though
    the data is gone (the lesson of PostgreSQL's "fsyncgate", 2018).
    """


class CorruptJournal(StorageError):
    """A record that was durable is damaged or missing: the node must not start from this journal.

    Serving from it could break promises already made (votes, acknowledged entries); the way back
    is to join the cluster again with an empty disk.
    """

    def __init__(self, file: str, offset: int, reason: str) -> None:
        super().__init__(f"{file}, offset {offset}: {reason}")
        self.file = file
        self.offset = offset
        self.reason = reason


class CorruptSnapshot(StorageError):
    """No undamaged snapshot joins up with the log: the state cannot be rebuilt from this disk."""


class LogViolation(StorageError):
    """The caller broke a law of the Raft log (a gap, a falling term, a cut below the commit).

    Fatal: the state in memory is no longer to be trusted.
    """


class NoSuchEntry(StorageError, LookupError):
    """The entry is not in the log: never appended, cut off, or trimmed and no longer live."""


class FolderInUse(StorageError):
    """Another process has the data folder open; two writers would destroy it."""
