"""The seam to the network: where a node's sockets come from.

`trio.socket` itself is one such source. Another one keeps the nodes of a test in memory without
taking over the sockets of everything else in its process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import trio

__all__ = ["Sockets"]

Found = tuple[int, int, int, str, tuple[object, ...]]
"""Family, kind and protocol for a socket, a name, and the address for it to bind or connect."""


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
