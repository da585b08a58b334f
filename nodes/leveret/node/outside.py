"""What a node takes from the machine that it runs on.

The seam for the simulator of whole nodes and for `leveret.testing`: they give another outside, and
run the same node.
"""

from __future__ import annotations

import gc
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import trio

from leveret.broker.access import hash_password
from leveret.storage import Disk, KernelSyncer, RealDisk, ThreadSyncer, pick_syncer
from leveret.transport import TransportConfig

from .descriptor_limit import make_room
from .memory import Memory, UnknownMemory, real_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.broker.access import InThread
    from leveret.catalog.model import PasswordHash
    from leveret.storage.syncers import Syncer
    from leveret.transport import Sockets

    from .config import NodeConfig

T = TypeVar("T")

GARBAGE_THRESHOLDS: Final = (50_000, 20, 50)
"""The path of a message makes no cycles; the default of 700 would search for them all the time."""


class HeldDisk(Disk, Protocol):
    """A disk that is ours until it is closed."""

    def close(self) -> None:
        """Let go of it."""


@dataclass(frozen=True, kw_only=True)
class Outside:
    """The machine as one node sees it.

    open_disk: the disk of a configuration; raises StorageError or OSError if it cannot be had.
    wall_clock_ms: milliseconds since 1970; may jump.
    secret_bytes: so many bytes that nobody can foretell.
    in_thread: runs work that takes long away from the loop.
    make_room: lets the process have descriptors for so many client connections, as far as it may;
        returns for how many there are.
    tune_memory: called once, when all that lives as long as the node is there.
    client_sockets, peer_sockets: where those for clients and for other nodes come from.
    links: how those to other nodes divide what they send, and their limits.
    hash_password: makes the record of a password and a salt, in `in_thread`.
    memory: of the node's process.
    has_control_socket: whether an operator can reach the node through its data folder.
    """

    open_disk: Callable[[NodeConfig], HeldDisk]
    wall_clock_ms: Callable[[], int]
    secret_bytes: Callable[[int], bytes]
    in_thread: InThread
    tune_memory: Callable[[], None]
    make_room: Callable[[int], int] = lambda connections: connections
    client_sockets: Sockets = trio.socket
    peer_sockets: Sockets = trio.socket
    links: TransportConfig = field(default_factory=TransportConfig)
    hash_password: Callable[[bytes, bytes], PasswordHash] = hash_password
    memory: Memory = field(default_factory=UnknownMemory)
    has_control_socket: bool = False


def open_real_disk(config: NodeConfig) -> RealDisk:
    """Return the configuration's data folder, made if need be."""
    folder = config.node.data_dir
    return RealDisk(folder, syncer=_syncer(config.storage.sync_method, folder))


def _syncer(method: str, folder: Path) -> Syncer:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    match method:
        case "kernel":
            return KernelSyncer(str(folder))
        case "thread":
            return ThreadSyncer()
        case _:
            return pick_syncer(str(folder))


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


async def _in_thread(work: Callable[[], T], *, limiter: trio.CapacityLimiter | None = None) -> T:
    return await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=limiter)


def _tune_garbage_collection() -> None:
    """Keep the collector from walking over what lives as long as the process."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)


REAL: Final = Outside(
    open_disk=open_real_disk,
    wall_clock_ms=_wall_clock_ms,
    secret_bytes=secrets.token_bytes,
    in_thread=_in_thread,
    tune_memory=_tune_garbage_collection,
    make_room=make_room,
    memory=real_memory(),
    has_control_socket=True,
)
"""The machine itself."""
