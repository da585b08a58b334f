"""Cost of the journal: syncs under a busy loop, throughput, memory an entry, recovery.

Run by `make bench`, on the disk of the temporary folder (set TMPDIR for another). It prints a
table and asserts nothing: times on a shared machine prove little.
"""

from __future__ import annotations

import os
import resource
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio
from rich.console import Console
from rich.table import Table

from leveret.storage import (
    Journal,
    JournalConfig,
    KernelSyncer,
    RealDisk,
    Syncer,
    ThreadSyncer,
)

BUSY_SLICE_S = 200e-6
SYNCS_FOR_S = 3.0
APPEND_BYTES = 4096
LARGE_BYTES = 100 << 10
LARGE_RECORDS = 3_000
SMALL_BYTES = 1 << 10
SMALL_RECORDS = 200_000
SEGMENT_BYTES = 64 << 20


def cpu_s() -> float:
    """Return CPU time of the process, its threads, and of the kernel on their behalf."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class InLine:
    """Syncs in the loop's own thread: what the others are compared with."""

    async def sync(self, fd: int, *, whole: bool = False) -> None:
        os.fdatasync(fd)
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Nothing to give back."""


async def syncs(folder: Path, syncer: Syncer, *, busy: bool) -> tuple[float, float, float, float]:
    """Return syncs/s, p50 and p99 in µs, and CPU µs a sync, of 4 KiB appends."""
    disk = RealDisk(folder, syncer=syncer)
    file = disk.append_file("segments/bench", preallocate_bytes=SEGMENT_BYTES)
    taken: list[float] = []

    async def spin() -> None:
        while True:
            end = time.perf_counter() + BUSY_SLICE_S
            while time.perf_counter() < end:
                pass
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        if busy:
            nursery.start_soon(spin)
        start, start_cpu = time.perf_counter(), cpu_s()
        while time.perf_counter() - start < SYNCS_FOR_S:
            before = time.perf_counter()
            if file.size + APPEND_BYTES > SEGMENT_BYTES:
                break
            file.write([bytes(APPEND_BYTES)])
            await file.sync()
            taken.append(time.perf_counter() - before)
        wall, cpu = time.perf_counter() - start, cpu_s() - start_cpu
        nursery.cancel_scope.cancel()
    file.close()
    disk.remove("segments/bench")
    disk.close()
    cuts = statistics.quantiles(taken, n=100)
    return len(taken) / wall, cuts[49] * 1e6, cuts[98] * 1e6, cpu / len(taken) * 1e6


async def appends(disk: RealDisk, *, size: int, count: int, gather: int) -> tuple[float, ...]:
    """Return MB/s, syncs/s, CPU µs a record, when `gather` records are appended at a time."""
    journal = await Journal.open(disk, JournalConfig(segment_bytes=SEGMENT_BYTES))
    turns = 0

    def count_turn() -> None:
        nonlocal turns
        turns += 1

    journal.on_durable(count_turn)
    log = journal.log(1)
    command = bytes(size)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        start, start_cpu = time.perf_counter(), cpu_s()
        first = log.last_index + 1
        for index in range(first, first + count):
            log.append(command, index, 1)
            if index % gather == 0:
                await journal.wait_durable(journal.appended - gather)
        await journal.wait_durable(journal.appended)
        wall, cpu = time.perf_counter() - start, cpu_s() - start_cpu
        nursery.cancel_scope.cancel()
    journal.close()
    return count * size / wall / 1e6, turns / wall, cpu / count * 1e6


async def recovery(disk: RealDisk) -> tuple[float, float, float]:
    """Return GB read, s/GB and bytes of memory an entry."""
    size = sum(
        len(disk.read_file(f"segments/{name}").read(0, 1 << 30)) for name in disk.list("segments")
    )
    start = time.perf_counter()
    journal = await Journal.open(disk, JournalConfig(segment_bytes=SEGMENT_BYTES))
    wall = time.perf_counter() - start
    entries = journal.log(1).last_index
    journal.close()
    del journal
    tracemalloc.start()
    journal = await Journal.open(disk, JournalConfig(segment_bytes=SEGMENT_BYTES))
    memory = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    journal.close()
    return size / 1e9, wall / size * 1e9, memory / entries


def in_new_folder(
    measure: Callable[[RealDisk], Awaitable[None]],
) -> None:
    """Run `measure` on a disk of its own."""
    with tempfile.TemporaryDirectory() as folder:
        disk = RealDisk(folder)
        trio.run(measure, disk)
        disk.close()


def main() -> None:
    """Measure all and print the tables."""
    table = Table("syncer", "loop", "syncs/s", "p50 µs", "p99 µs", "CPU µs a sync")
    makers: list[tuple[str, Callable[[str], Syncer]]] = [
        ("in line", lambda _: InLine()),
        ("thread", lambda _: ThreadSyncer()),
        ("kernel AIO", KernelSyncer),
    ]
    for busy in (False, True):
        for name, make in makers:
            with tempfile.TemporaryDirectory() as folder:

                async def measure(
                    folder: str = folder, make: Callable[[str], Syncer] = make, busy: bool = busy
                ) -> tuple[float, float, float, float]:
                    return await syncs(Path(folder), make(folder), busy=busy)

                figures = trio.run(measure)
            shown = [f"{figure:,.0f}" for figure in figures]
            if busy:
                shown[3] = "-"  # the loop's own
            table.add_row(name, "busy" if busy else "idle", *shown)
    console = Console()
    console.print(table)

    table = Table(
        "records", "gathered", "MB/s", "syncs/s", "CPU µs a record", "GB", "s/GB", "B/entry"
    )

    for size, count, gather in [
        (LARGE_BYTES, LARGE_RECORDS, 1),
        (LARGE_BYTES, LARGE_RECORDS, 20),
        (SMALL_BYTES, SMALL_RECORDS, 100),
    ]:

        async def both(
            disk: RealDisk, size: int = size, count: int = count, gather: int = gather
        ) -> None:
            wrote = await appends(disk, size=size, count=count, gather=gather)
            read = await recovery(disk)
            table.add_row(
                f"{count:,} of {size:,} B",
                str(gather),
                *(f"{figure:,.0f}" for figure in wrote),
                *(f"{figure:,.2f}" for figure in read),
            )

        in_new_folder(both)
    console.print(table)


if __name__ == "__main__":
    main()
