"""The seam to the network: where a node's sockets come from.

`trio.socket` itself is one such source. Another one keeps the nodes of a test in memory without
taking over the sockets of everything else in its process.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import trio

__all__ = ["Sockets", "send_now"]

Found = tuple[int, int, int, str, tuple[object, ...]]
"""Family, kind and protocol for a socket, a name, and the address for it to bind or connect."""


def send_now(socket: trio.socket.SocketType, data: bytes | bytearray | memoryview) -> int:
    """Send what the system takes at once, and return how many bytes; no checkpoint.

    Trio's own `send` yields after it has sent: a turn of the loop, and half of what a small
    message costs. Not for a task that does nothing else. A socket without a descriptor (one in
    memory, or closed) takes nothing here; its own `send` is to be awaited.

    Raises:
        OSError: the connection is gone.
    """
    try:
        descriptor = socket.fileno()
        return os.write(descriptor, data) if descriptor >= 0 else 0
    except (BlockingIOError, NotImplementedError):
        return 0


class Sockets(Protocol):
    """As much of `trio.socket` as a node uses."""

    def socket(self, family: int, type: int, proto: int) -> trio.socket.SocketType:  # noqa: A002
        """Return a new socket."""

    async def getaddrinfo(
        self,
        host: str,
        port: int,
        family: int = 0,
        type: int = 0,  # noqa: A002
        proto: int = 0,
        flags: int = 0,
    ) -> Sequence[Found]:
        """Return what the name `host` stands for.

        Raises:
            OSError: for nothing.
        """
