"""The machine that a node under test believes to run on: no disk, no threads, no waiting."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from leveret.catalog.model import PasswordHash
from leveret.node.outside import Outside

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from leveret.node.config import NodeConfig
    from leveret.transport import Sockets

    from .disk import MemoryDisk

T = TypeVar("T")

HASH: Final = "sha256"
"""RabbitMQ's: a password of a test is no secret, and scrypt would take most of a start."""


class WallClock:
    """Milliseconds since 1970, as trio's clock has them pass: under a virtual one they jump too."""

    def __init__(self) -> None:
        self._zero_ms = time.time_ns() // 1_000_000 - self._passed_ms()

    def __call__(self) -> int:
        """Return the time."""
        return self._zero_ms + self._passed_ms()

    @staticmethod
    def _passed_ms() -> int:
        return int(trio.current_time() * 1000)


def outside(
    disk: MemoryDisk,
    *,
    clock: WallClock,
    rng: Random,
    client_sockets: Sockets,
    peer_sockets: Sockets,
) -> Outside:
    """Return the outside of one node on `disk`."""

    def open_disk(_: NodeConfig) -> MemoryDisk:
        return disk

    return Outside(
        open_disk=open_disk,
        wall_clock_ms=clock,
        secret_bytes=rng.randbytes,
        in_thread=_at_once,
        tune_memory=_leave_memory_alone,
        client_sockets=client_sockets,
        peer_sockets=peer_sockets,
        hash_password=_hash_password,
    )


async def _at_once(
    work: Callable[[], T],
    *,
    limiter: trio.CapacityLimiter | None = None,  # noqa: ARG001 - one thing at a time anyway
) -> T:
    await trio.lowlevel.checkpoint()
    return work()


def _leave_memory_alone() -> None:
    """The process is the test's, not ours."""


def _hash_password(password: bytes, salt: bytes) -> PasswordHash:
    return PasswordHash(HASH, salt, hashlib.new(HASH, salt + password).digest())
