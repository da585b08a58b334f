"""The folder in which a run works, which is gone when the run is, however it ends.

A run that is killed cannot take its folder away. The next one does: it is known to be nobody's
any more when nobody holds its lock.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Final

PREFIX: Final = "leveret-chaos-"


@contextmanager
def workspace(below: Path | None = None) -> Iterator[Path]:
    """Make a folder for a run, and take it away at the end, with those of runs that were killed.

    SIGTERM and a lost terminal end the context like Ctrl-C: by KeyboardInterrupt.

    below: instead of the system's folder for temporary files.
    """
    root = Path(tempfile.gettempdir()) if below is None else below
    for left in root.glob(f"{PREFIX}*"):
        with suppress(OSError), _held(left):
            shutil.rmtree(left, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
    try:
        with _held(work), _interrupted_by(signal.SIGTERM, signal.SIGHUP):
            yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a folder's lock; raises OSError if another process does."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fd)


@contextmanager
def _interrupted_by(*numbers: signal.Signals) -> Iterator[None]:
    def interrupt(_number: int, _frame: FrameType | None) -> None:
        # Trio knows how to end on this one.
        signal.raise_signal(signal.SIGINT)

    before = {number: signal.signal(number, interrupt) for number in numbers}
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # started in the background by a shell
        before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
