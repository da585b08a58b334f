"""A journal on a disk, run for as long as a block."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from chaos.simulation.disk import SimulatedDisk
from leveret.storage import Disk, Journal, JournalConfig

SMALL = JournalConfig(segment_bytes=8192, flush_bytes_max=4096, cache_bytes=2000)


def new_disk(seed: int = 0) -> SimulatedDisk:
    return SimulatedDisk(random.Random(seed))


@asynccontextmanager
async def running(disk: Disk, config: JournalConfig = SMALL) -> AsyncIterator[Journal]:
    """Open the journal and run it; the block's end kills it like a crash."""
    journal = await Journal.open(disk, config)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        yield journal
        nursery.cancel_scope.cancel()
    journal.close()


async def settle(journal: Journal) -> None:
    """Wait until all that was appended is durable."""
    await journal.wait_durable(journal.appended)


def command(index: int, term: int = 1, *, size: int = 100) -> bytes:
    """Return a command that can be told from every other one."""
    return f"{index}/{term};".encode().ljust(size, b"x")
