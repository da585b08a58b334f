"""What a node does with a data folder that is damaged: nothing that it says may count any more.

A member of a cluster puts the damaged files aside and comes back with an empty folder, as a
learner that votes only once it has everything again from the others. A single node has nobody to
get it from, and refuses to start.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from leveret.storage import RESERVE_FILE

if TYPE_CHECKING:
    from leveret.storage import Disk

log = logging.getLogger(__name__)

FOLDER: Final = "damaged"
_ASIDE: Final = ("segments", "snapshots")


def put_aside(disk: Disk, reason: Exception) -> None:
    """Move journal and snapshots into the folder `damaged`, in place of what is there.

    Raises:
        OSError: the disk failed.
    """
    log.error(
        "the data folder is damaged: put aside, and to be fetched from the other nodes",
        extra={"reason": str(reason), "folder": FOLDER},
    )
    for name in disk.list(FOLDER):
        disk.remove(f"{FOLDER}/{name}")
    for folder in _ASIDE:
        for name in disk.list(folder):
            if name == RESERVE_FILE:
                disk.remove(f"{folder}/{name}")
                continue
            disk.rename(f"{folder}/{name}", f"{FOLDER}/{folder}-{name}")
