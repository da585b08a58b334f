"""What a data folder says of the node that owns it, from its first start on.

The file `member` is written aside and small. It tells whether the folder's node has founded a
cluster whose groups may not all be on disk yet, and which life of the node's data this is.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from leveret.storage import SyncFailed

if TYPE_CHECKING:
    from leveret.storage import Disk

log = logging.getLogger(__name__)

MEMBER_FILE: Final = "member"
_BYTES_MAX: Final = 1 << 16


@dataclass(frozen=True, kw_only=True)
class MemberFile:
    """The content of the file.

    incarnation: greater than that of every earlier folder of this node.
    is_founding: the node began a cluster, and may have died before all of that was on disk.
    """

    node: int
    incarnation: int
    is_founding: bool = False

    @classmethod
    def new(cls, node: int, old: MemberFile | None, *, now_ms: int) -> MemberFile:
        """Return that of a new life of the node's data, after `old` if that is known.

        The clock makes its incarnation greater than those of lives that nobody here knows of.
        """
        last = 0 if old is None else old.incarnation
        return cls(node=node, incarnation=max(last + 1, now_ms))

    @classmethod
    def read(cls, disk: Disk) -> MemberFile | None:
        """Return what is there; None in a new folder, or where it is damaged.

        A folder without it belongs to a new member, whatever else it holds: that is safe.
        """
        try:
            file = disk.read_file(MEMBER_FILE)
        except FileNotFoundError:
            return None
        try:
            found = json.loads(file.read(0, _BYTES_MAX))
            return cls(
                node=int(found["node"]),
                incarnation=int(found["incarnation"]),
                is_founding=bool(found["is_founding"]),
            )
        except (ValueError, KeyError, TypeError):
            log.exception("a damaged file is ignored", extra={"file": MEMBER_FILE})
            return None
        finally:
            file.close()

    async def write(self, disk: Disk) -> None:
        """Make it the content of the file, durably.

        Raises:
            SyncFailed: the disk is full, or failed.
        """
        try:
            await disk.write_aside(MEMBER_FILE, [json.dumps(asdict(self)).encode() + b"\n"])
        except OSError as error:  # full, most likely: to be said in words, it is nobody's bug
            raise SyncFailed(f"{MEMBER_FILE}: {error.strerror}") from error
