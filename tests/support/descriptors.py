"""A process that may open no descriptor more, as when clients hold all of them."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def open_now() -> list[int]:
    """Return the descriptors that are open in this process."""
    return [int(entry.name) for entry in Path("/dev/fd").iterdir()]


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Let this process open none, whoever asks; it is checked that it cannot."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(open_now()) + 1, before[1]))
    taken: list[int] = []
    try:
        with pytest.raises(OSError, match="Too many open files") as failed:
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        assert errno.EMFILE == failed.value.errno
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for fd in taken:
            os.close(fd)
