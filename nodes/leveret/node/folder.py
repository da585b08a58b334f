"""Keeps a data folder for one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

LOCK_FILE = "process.lock"


class FolderUnusable(Exception):
    """The folder cannot be used now; the text says why and what to do."""


@contextlib.contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Make the folder if need be, and hold it until the end of the context.

    The lock is the operating system's: it goes with the process, however that ends. The file
    stays, with the last holder's process id in it.

    Raises:
        FolderUnusable: another process holds it, or it cannot be made or written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise FolderUnusable(
            f"the data folder {folder} cannot be used: {error.strerror}; correct its permissions"
            " or choose another one with --data-dir"
        ) from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(fd, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise FolderUnusable(
                f"the data folder {folder} is in use by process {holder}; stop that one, or choose"
                " another folder with --data-dir"
            ) from error
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        yield
    finally:
        os.close(fd)
