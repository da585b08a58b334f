"""Where the control socket is, and a name for it that fits into a socket address.

The system allows about a hundred bytes for the path of a Unix socket, and data folders may be
deeper. On Linux the folder is then reached through its descriptor, elsewhere from the current
folder.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

SOCKET_FILE: Final = "control.sock"
PATH_BYTES_MAX: Final = 100
"""Linux takes 107, macOS 103."""


@contextlib.contextmanager
def short_path(folder: Path) -> Iterator[str]:
    """Give a path of the control socket in `folder` that can be bound and connected to.

    It is good only inside the context.

    Raises:
        OSError: there is no such folder, or none of its paths is short enough.
    """
    path = str(folder / SOCKET_FILE)
    if len(os.fsencode(path)) <= PATH_BYTES_MAX:
        yield path
        return
    if sys.platform == "linux":
        descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield f"/proc/self/fd/{descriptor}/{SOCKET_FILE}"
        finally:
            os.close(descriptor)
        return
    relative = os.path.relpath(path)
    if len(os.fsencode(relative)) > PATH_BYTES_MAX:
        raise OSError(f"{path} is too long for a socket; use a shorter data folder")
    yield relative
