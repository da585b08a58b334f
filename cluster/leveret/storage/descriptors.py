"""Descriptors that are kept for files, so that connections cannot take the last one.

A process may have so many open descriptors and no more. When clients hold all of them, a log that
must go on in its next file could not open it, and the node would have to end. So some are held
back from the start; the one that is needed is given up at the moment in which it is taken again.
That cannot be disturbed: connections are accepted, and files opened, by one thread.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

SPARES: Final = 16
"""Some new files of the log, and what is open for a moment beside: folders to be synced,
snapshots. Those that are used up are taken back as soon as there are any."""
SCARCE: Final = frozenset({errno.EMFILE, errno.ENFILE})


class Descriptors:
    """Opens and closes files, and always has a descriptor for the next one."""

    def __init__(self, spares: int = SPARES) -> None:
        self._wanted = spares
        self._spares: list[int] = []
        self._refill()

    def open(self, path: str | Path, flags: int, mode: int = 0o777) -> int:
        """Return a descriptor as `os.open` does, closed on exec.

        Raises:
            OSError: as `os.open` does; EMFILE or ENFILE when the spare ones are used up, too.
        """
        while True:
            try:
                fd = os.open(path, flags | os.O_CLOEXEC, mode)
            except OSError as error:
                if error.errno not in SCARCE or not self._spares:
                    raise
                os.close(self._spares.pop())
            else:
                self._refill()
                return fd

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        os.close(fd)
        self._refill()

    @contextlib.contextmanager
    def opened(self, path: str | Path, flags: int, mode: int = 0o777) -> Iterator[int]:
        """Open a file for a while; raises as `open`."""
        fd = self.open(path, flags, mode)
        try:
            yield fd
        finally:
            self.close(fd)

    @contextlib.contextmanager
    def one_free(self) -> Iterator[None]:
        """Leave room for one that the system opens by itself, and closes before the end."""
        if self._spares:
            os.close(self._spares.pop())
        try:
            yield
        finally:
            self._refill()

    @property
    def are_scarce(self) -> bool:
        """Whether some of those held back are in use, and could not be taken back."""
        return len(self._spares) < self._wanted

    def close_all(self) -> None:
        """Hold back none any more."""
        self._wanted = 0
        while self._spares:
            os.close(self._spares.pop())

    def _refill(self) -> None:
        with contextlib.suppress(OSError):  # there are none; at the next occasion
            while len(self._spares) < self._wanted:
                self._spares.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
