"""Durable storage of a node: the journal of all Raft groups, snapshots, and the seam to the disk.

disk       the seam (Disk, AppendFile, ReadFile) and the real disk
syncers    fdatasync without stopping the loop
records    one record as bytes
segments   a file of flushes; what a torn tail is
table      where the entries of a log lie, 24 bytes each
cache      recent commands
log        the log of one group and its laws
journal    the one writer: a flush and a sync for all groups
recovery   reading it all at boot
reclaim    giving space back
reserve    room held for a full disk
snapshots  states, written aside
"""

from leveret.storage.disk import AppendFile, Disk, ReadFile, RealDisk
from leveret.storage.errors import (
    CorruptJournal,
    CorruptSnapshot,
    FolderInUse,
    LogViolation,
    NoSuchEntry,
    StorageError,
    SyncFailed,
)
from leveret.storage.journal import Journal, JournalConfig
from leveret.storage.log import GroupLog
from leveret.storage.reclaim import Reclaimed, reclaim
from leveret.storage.reserve import RESERVE_FILE
from leveret.storage.snapshots import Snapshot, Snapshots
from leveret.storage.syncers import KernelSyncer, Syncer, ThreadSyncer, pick_syncer

__all__ = [
    "RESERVE_FILE",
    "AppendFile",
    "CorruptJournal",
    "CorruptSnapshot",
    "Disk",
    "FolderInUse",
    "GroupLog",
    "Journal",
    "JournalConfig",
    "KernelSyncer",
    "LogViolation",
    "NoSuchEntry",
    "ReadFile",
    "RealDisk",
    "Reclaimed",
    "Snapshot",
    "Snapshots",
    "StorageError",
    "SyncFailed",
    "Syncer",
    "ThreadSyncer",
    "pick_syncer",
    "reclaim",
]
