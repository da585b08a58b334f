"""Opens the port for other nodes, and takes what connects to it."""

from __future__ import annotations

import ipaddress
import logging
from typing import TYPE_CHECKING, NoReturn

import trio

from .errors import TransportError
from .identity import Address

if TYPE_CHECKING:
    from collections.abc import Callable

    from .sockets import Sockets

__all__ = ["accept_forever", "is_loopback", "is_wildcard", "listen"]

log = logging.getLogger("leveret.transport")

BACKLOG = 128
BREATH_S = 0.1
"""Pause after a failed accept: out of descriptors or memory, it would fail again at once."""


def is_loopback(host: str) -> bool:
    """Tell whether the numeric address `host` never leaves this machine."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


def is_wildcard(host: str) -> bool:
    """Tell whether `host` stands for all addresses of a machine, and so leads to none of them."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


async def listen(
    address: Address, *, has_tls: bool, sockets: Sockets = trio.socket
) -> tuple[trio.socket.SocketType, Address]:
    """Return a listening socket on the first address of the host, and what it is bound to.

    Port 0 lets the system choose.

    Raises:
        TransportError: off loopback without TLS, or the address cannot be had.
    """
    try:
        found = await sockets.getaddrinfo(address.host, address.port, type=trio.socket.SOCK_STREAM)
    except OSError as error:
        raise TransportError(f"cannot listen on {address}: {error.strerror}") from error
    family, kind, protocol, _, target = found[0]
    if not has_tls and not is_loopback(str(target[0])):
        raise TransportError(
            f"refusing to listen for other nodes on {address} without TLS: give this node the"
            " cluster's certificate (ca.pem, node.pem and node.key), or listen on a loopback"
            " address such as 127.0.0.1"
        )
    socket = sockets.socket(family, kind, protocol)
    try:
        socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)
        await socket.bind(target)
        socket.listen(BACKLOG)
    except OSError as error:
        socket.close()
        raise TransportError(
            f"cannot listen for other nodes on {address}: {error.strerror or error};"
            " choose another address or stop what uses it"
        ) from error
    except BaseException:
        socket.close()
        raise
    name = socket.getsockname()
    return socket, Address(name[0], name[1])


async def accept_forever(
    listener: trio.socket.SocketType, take: Callable[[trio.socket.SocketType], None]
) -> NoReturn:
    """Hand each new connection to `take`, which owns it from then on and must not wait."""
    while True:
        try:
            socket, _ = await listener.accept()
        except OSError as error:
            reason = error.strerror  # its stack would say no more
            log.error("accepting a connection failed", extra={"reason": reason})  # noqa: TRY400
            await trio.sleep(BREATH_S)
        else:
            take(socket)
