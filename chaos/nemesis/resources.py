"""Faults of what a process needs: room on its disk, descriptors, connections, the right time."""

from __future__ import annotations

import contextlib
import errno
import resource
from pathlib import Path
from typing import Final

import trio

from chaos.members import Node
from chaos.nemesis.fault import NotNow, Target

BALLAST: Final = "ballast"
CHUNKS: Final = (1 << 20, 1 << 12)
STORM: Final = 200
"""Connections of a storm."""
SPARE: Final = 2
"""Descriptors that a node may still open when it is short of them."""
JUMP_S: Final = 10 * 3600.0
"""How far a clock may jump; less than a day, for which certificates allow."""


class FullDisk:
    """Another program takes all the room, or nearly all, on a node's disk."""

    NEARLY = 20 << 20

    def __init__(self, target: Target) -> None:
        self._nodes = list(target.nodes)
        self._keep = target.rng.choice((0, self.NEARLY))

    async def inject(self) -> None:
        for node in self._nodes:
            await trio.to_thread.run_sync(_fill, node.folder / BALLAST, self._keep)

    async def heal(self) -> None:
        for node in self._nodes:
            (node.folder / BALLAST).unlink(missing_ok=True)


def _fill(ballast: Path, keep: int) -> None:
    """Take all the room that the disk has, and give `keep` octets of it back."""
    with ballast.open("wb", buffering=0) as file:
        for size in CHUNKS:
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
        file.truncate(max(file.tell() - keep, 0))


class Storm:
    """Clients by the hundred that connect, say something or nothing, and stay."""

    def __init__(self, target: Target) -> None:
        self._nodes = list(target.nodes)
        self._rng = target.rng
        self._streams: list[trio.SocketStream] = []

    async def inject(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = trio.current_time() + 5.0
            for node in self._nodes:
                for _ in range(STORM):
                    nursery.start_soon(self._connect, node)

    async def _connect(self, node: Node) -> None:
        # A node that is down refuses, one that is short of descriptors hangs up.
        with contextlib.suppress(OSError, trio.BrokenResourceError):
            stream = await trio.open_tcp_stream(node.host.address, node.host.amqp_port)
            self._streams.append(stream)
            words = self._rng.choice(
                (b"", b"AMQP\x00\x00\x09\x01", b"AMQP\x00\x01\x00\x00", self._rng.randbytes(99))
            )
            if words:
                await stream.send_all(words)

    async def heal(self) -> None:
        for stream in self._streams:
            await trio.aclose_forcefully(stream)


class Descriptors(Storm):
    """A node may open hardly a descriptor more, and clients want many."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._before: list[tuple[int, tuple[int, int]]] = []

    async def inject(self) -> None:
        for node in self._nodes:
            if not node.is_running:
                raise NotNow(f"{node} is down")
            open_now = _highest_descriptor(node.pid) + 1
            before = resource.prlimit(node.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(node.pid, resource.RLIMIT_NOFILE, (open_now + SPARE, before[1]))
            self._before.append((node.pid, before))
        await super().inject()

    async def heal(self) -> None:
        for pid, before in self._before:
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        await super().heal()


def _highest_descriptor(pid: int) -> int:
    return max(int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir())


class Clock:
    """The wall clock of a node jumps, and jumps back."""

    def __init__(self, target: Target) -> None:
        self._nodes = list(target.nodes)
        self._by_s = target.rng.uniform(-JUMP_S, JUMP_S)

    async def inject(self) -> None:
        for node in self._nodes:
            set_clock(clock_file(node.folder.parent, node.number), self._by_s)

    async def heal(self) -> None:
        for node in self._nodes:
            set_clock(clock_file(node.folder.parent, node.number), 0.0)


def clock_file(folder: Path, number: int) -> Path:
    """Return the file from which libfaketime reads by how much a node's clock is wrong."""
    return folder / f"node-{number}.clock"


def set_clock(file: Path, by_s: float) -> None:
    """Have a node's clock be wrong by so much, from a second from now on at the latest."""
    # At once whole: it is read at any time.
    fresh = file.with_suffix(".new")
    fresh.write_text(f"{by_s:+.3f}s\n")
    fresh.replace(file)


def clock_tools(library: Path, file: Path) -> list[str]:
    """Return what stands before a command so that its clock can be set; trio's is not touched."""
    set_clock(file, 0.0)
    return [
        "env",
        f"LD_PRELOAD={library}",
        f"FAKETIME_TIMESTAMP_FILE={file}",
        "FAKETIME_CACHE_DURATION=1",
        "FAKETIME_DONT_FAKE_MONOTONIC=1",
        # Times of files are nobody's concern, and a start looks at many files.
        "NO_FAKE_STAT=1",
    ]
