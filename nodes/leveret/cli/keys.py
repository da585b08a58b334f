"""Keys that are pressed while a command runs."""

from __future__ import annotations

import contextlib
import os
import sys
import termios
import tty
from collections.abc import AsyncGenerator, Iterator

import trio


async def pressed_keys() -> AsyncGenerator[str, None]:
    """Yield the characters that are typed, at once and without an echo, or that come by a pipe.

    White space is passed over. Ends where nobody can type. To be closed by whoever iterates, so
    that the terminal is as before.
    """
    fd = sys.stdin.fileno()
    with _without_echo(fd) as is_ours:
        if not is_ours:
            return  # reading from behind would stop this process
        while True:
            try:
                await trio.lowlevel.wait_readable(fd)
            except OSError:
                return  # a plain file or /dev/null, for which there is no waiting
            chunk = os.read(fd, 4096)
            if not chunk:
                return
            for character in chunk.decode(errors="replace"):
                if not character.isspace():
                    yield character


@contextlib.contextmanager
def _without_echo(fd: int) -> Iterator[bool]:
    """Have a terminal give each key at once; False if another process is in front of us."""
    if not os.isatty(fd):
        yield True
        return
    if os.tcgetpgrp(fd) != os.getpgrp():
        yield False
        return
    before = termios.tcgetattr(fd)
    # Signals stay: Ctrl-C is one.
    tty.setcbreak(fd, termios.TCSADRAIN)
    try:
        yield True
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
