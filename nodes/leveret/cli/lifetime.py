"""How long a process lives: signals stop it within a deadline, and it does not outlive its parent.

Signals are handled by Python's own handlers and the deadline by an alarm, not by the event loop:
they work while the loop is busy, or stuck.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

log = logging.getLogger("leveret.cli")

_PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h
_LATE_CODE = 70


@contextlib.contextmanager
def stopped_by_signals(stop: Callable[[], None], *, within_s: float) -> Iterator[None]:
    """Call `stop` on the first SIGTERM or SIGINT; main thread only.

    A second signal ends the process at once, with 128 + its number. When the context has not
    ended `within_s` after the first, the process ends with code 70.
    """
    is_stopping = False

    def on_signal(number: int, _frame: FrameType | None) -> None:
        nonlocal is_stopping
        if is_stopping:
            _end(f"{signal.Signals(number).name} again: ended at once", 128 + number)
        is_stopping = True
        signal.setitimer(signal.ITIMER_REAL, within_s)
        stop()

    def on_alarm(_number: int, _frame: FrameType | None) -> None:
        _end(f"not stopped within {within_s:g} s: ended; confirmed messages are safe", _LATE_CODE)

    handlers = {signal.SIGTERM: on_signal, signal.SIGINT: on_signal, signal.SIGALRM: on_alarm}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(reason: str, code: int) -> None:
    """End the process without any clean-up: what must survive is on disk already."""
    # Not through logging: the signal may have come while its lock was held.
    os.write(2, f"leveret: {reason}\n".encode())
    os._exit(code)


def end_with_parent(parent: int) -> None:
    """Have this process stopped (SIGTERM) when its parent, process `parent`, ends in any way.

    Called by the child itself, because a parent that runs code between fork and exec cannot use
    the quick way to make a process. On other systems than Linux nothing is done: there a
    parent that is killed leaves its children.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        log.warning("cannot be bound to the parent", extra={"reason": os.strerror(error)})
    # The parent may have ended before the call; then nobody sends the signal any more.
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
