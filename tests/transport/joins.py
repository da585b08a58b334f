"""A cluster of one node that admits, newcomers to it, and others who only seem to be a member."""

from __future__ import annotations

import contextlib
import struct
from datetime import UTC, datetime
from pathlib import Path

import msgpack
import trio

from leveret.transport import (
    Address,
    Admission,
    Joined,
    JoinRequest,
    NodeId,
    Refused,
    TlsFiles,
    TransportConfig,
    join,
)

from .support import ONE, TOKEN, Node, identity, start
from .virtual import Net, Socket

NOW = datetime.now(UTC)
HERE = Address("127.0.0.1", 30002)
"""Where the newcomer listens."""


class Cluster:
    """Node 1, and a catalog of the simplest kind behind it."""

    def __init__(self, tls: TlsFiles | None = None, config: TransportConfig | None = None) -> None:
        self.node = Node(identity(1), members={}, tls=tls, config=config)
        self.requests: list[JoinRequest] = []
        self.members: dict[NodeId, tuple[int, Address]] = {}
        self.refuses = ""
        self.is_stuck = False

    async def start(self, nursery: trio.Nursery) -> Address:
        self.node.peers.on_join(self.admit, now=lambda: NOW)
        address = await start(nursery, self.node)
        self.members[ONE] = (1, address)
        return address

    async def admit(self, request: JoinRequest) -> Admission:
        self.requests.append(request)
        await trio.lowlevel.checkpoint()
        if self.is_stuck:
            await trio.sleep_forever()
        if self.refuses:
            raise Refused(self.refuses)
        known = [n for n, (life, _) in self.members.items() if life == request.incarnation]
        node = known[0] if known else NodeId(max(self.members) + 1)
        self.members[node] = (request.incarnation, request.address)
        self.node.peers.add_peer(node, request.address)
        return Admission(
            node=node,
            name=request.name or f"node-{node}",
            members={node: at for node, (_, at) in self.members.items()},
        )


async def newcomer(
    at: Address,
    folder: Path,
    *,
    token: bytes = TOKEN,
    listen_on: Address = HERE,
    incarnation: int = 7,
    name: str = "",
    cluster: str = "",
    config: TransportConfig | None = None,
) -> Joined:
    return await join(
        at,
        token=token,
        listen_on=listen_on,
        incarnation=incarnation,
        software="leveret test",
        folder=folder,
        name=name,
        cluster=cluster,
        config=config,
    )


def is_empty(folder: Path) -> bool:
    return not any(folder.iterdir())


def frame(channel: str, payload: object) -> bytes:
    body = msgpack.packb([channel, payload])
    return struct.pack("<I", len(body)) + bytes(body)


async def liar(net: Net, nursery: trio.Nursery, script: list[bytes]) -> Address:
    """Return where somebody listens who says `script` to the first who comes, and closes."""
    listener = Socket(net)
    await listener.bind(("127.0.0.1", 0))
    listener.listen()

    async def speak() -> None:
        socket, _ = await listener.accept()
        with contextlib.closing(socket), contextlib.suppress(ConnectionResetError):
            for part in script:
                await socket.send(part)
            socket.shutdown(1)
            while await socket.recv(65536):
                pass

    nursery.start_soon(speak)
    return Address(*listener.getsockname())
