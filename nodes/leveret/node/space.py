"""Gives disk space back: what is settled leaves the journal, a whole segment at a time.

The log of a group is trimmed behind its snapshots, and those are due after much work only.  On a
disk that is low that would be too late: publishers are held back, so the work that makes a
snapshot due never comes.  So then all groups are made to save one.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio

from leveret.storage import reclaim

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.consensus import Replicas
    from leveret.storage import Journal

log = logging.getLogger(__name__)

RECLAIM_S: Final = 5.0
"""How often space is looked for that the journal can give back."""
LOW_S: Final = 1.0
"""The same, while the disk is low."""
SNAPSHOTS_S: Final = 5.0
"""Shortest time between two rounds of snapshots for want of room."""


async def give_space_back(
    journal: Journal,
    replicas: Replicas,
    *,
    is_low: Callable[[], bool],
) -> None:
    """Give space back, now and then, until cancelled.

    is_low: whether this node's disk is.

    Raises:
        CorruptJournal, SyncFailed: the disk lost something.
    """
    next_snapshots_s = 0.0
    while True:
        await trio.sleep(LOW_S if is_low() else RECLAIM_S)
        if is_low() and trio.current_time() >= next_snapshots_s:
            next_snapshots_s = trio.current_time() + SNAPSHOTS_S
            await replicas.save_snapshots()
        if journal.sealed:
            reclaimed = await reclaim(journal)
            if reclaimed.dropped:
                log.info("journal reclaimed", extra={"segments": len(reclaimed.dropped)})
