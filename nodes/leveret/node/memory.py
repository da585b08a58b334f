"""Memory: how much this process uses, how much there is for it, and the watermark between.

What counts is what the process has of the machine's memory (its resident set): that is what the
system kills it for.  What there is for it is the machine's memory, or less where a control group
sets a limit, as containers do.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from .units import Watermark

_GROUPS: Final = Path("/sys/fs/cgroup")
STATM_BYTES: Final = 256
"""More than its seven numbers take."""


class Memory(Protocol):
    """The memory of one node's process."""

    def used_bytes(self) -> int | None:
        """Return its resident memory; None where that cannot be told."""

    def total_bytes(self) -> int | None:
        """Return how much there is for it; None where that cannot be told."""

    def give_back(self) -> None:
        """Return to the system what is free inside the process; may take long."""


class UnknownMemory:
    """Of a system that does not tell, and of nodes that share one process: never low."""

    def used_bytes(self) -> int | None:
        """Return None."""
        return None

    def total_bytes(self) -> int | None:
        """Return None."""
        return None

    def give_back(self) -> None:
        """Do nothing."""


class LinuxMemory:
    """This process, as Linux tells it."""

    def __init__(self) -> None:
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")
        # Held open: when clients have all descriptors, none could be had for it.
        self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        # Another C library than GNU's has none, and keeps less for itself.
        self._trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)

    def used_bytes(self) -> int | None:
        """Return the resident memory."""
        pages = int(os.pread(self._statm, STATM_BYTES, 0).split()[1])
        return pages * self._page_bytes

    def total_bytes(self) -> int | None:
        """Return the machine's memory, or what the control groups of this process leave of it."""
        machine = os.sysconf("SC_PHYS_PAGES") * self._page_bytes
        return min([machine, *group_limits(_GROUPS, Path("/proc/self/cgroup"))])

    def give_back(self) -> None:
        """Have the allocator return free pages, which it else keeps for later."""
        if self._trim is not None:
            self._trim(0)


def group_limits(root: Path, membership: Path) -> list[int]:
    """Return the limits in bytes of a process's control groups and of those around them.

    root: where the groups' files are, of version 2 or, in `memory/`, of version 1.
    membership: the file that names the groups; lines as in `0::/system.slice/leveret.service`.
    """
    limits = []
    for line in _read(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            base, name = root, "memory.max"
        elif "memory" in controllers.split(","):
            base, name = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        # In a container the path may be the one outside of it: then only the root is there.
        group = Path(path.lstrip("/"))
        for each in (group, *group.parents):
            text = _read(base / each / name).strip()
            if text.isdecimal():  # the other value is "max"
                limits.append(int(text))
    return limits


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""


def real_memory() -> Memory:
    """Return the memory of this process."""
    return LinuxMemory() if sys.platform == "linux" else UnknownMemory()


class MemoryWatch:
    """Says whether the memory is low."""

    def __init__(self, memory: Memory, watermark: Watermark) -> None:
        self._memory = memory
        self.watermark = watermark
        """May be changed at any time."""

    @property
    def used_bytes(self) -> int | None:
        """What the process uses; None where that cannot be told."""
        return self._memory.used_bytes()

    @property
    def limit_bytes(self) -> int | None:
        """Above it the memory is low; None where that cannot be told."""
        return self.watermark.of(self._memory.total_bytes())

    def is_low(self) -> bool:
        """Say whether more is used than the watermark allows."""
        used_bytes, limit_bytes = self.used_bytes, self.limit_bytes
        return used_bytes is not None and limit_bytes is not None and used_bytes > limit_bytes

    def give_back(self) -> None:
        """Return to the system what is free inside the process; may take long."""
        self._memory.give_back()
