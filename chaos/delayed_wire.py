"""A wire that takes its time: what comes in at one end is held, and comes out at the other.

`python -m chaos.delayed_wire SEED NAME…` makes two TAP devices for each name, `near-NAME` and
`far-NAME`, which last as long as this process. `chaos/detour.py` puts hosts behind them. Commands
on standard input, one a line, answered by one line each; this program ends with its input:

    hold DELAY JITTER SHARE LATE    hold frames from now on, see `Holding`
    flow                            let all that is held go, and hold nothing any more
    counts                          tell what has become of the frames, as JSON

A loop over `poll` and nothing but the standard library: it starts in a moment on a machine that
has much to do, and costs each frame little.
"""

from __future__ import annotations

import fcntl
import heapq
import json
import os
import select
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from random import Random
from typing import Final

TUN: Final = Path("/dev/net/tun")
TUNSETIFF: Final = 0x400454CA
IFF_TAP: Final = 0x0002
IFF_NO_PI: Final = 0x1000
"""Frames as they are, without a header of the driver's."""
FRAME_BYTES: Final = 65536
"""More than a frame can have: a device that promises no help gets none above its MTU."""
READ_MAX: Final = 64
"""Frames that are read from one end before the others have their turn."""
HELD_BYTES_MAX: Final = 32 << 20
"""Of each way; further frames are lost, as in a router that is short of memory."""


@dataclass(frozen=True)
class Holding:
    """How long frames are held, in seconds.

    delay_s, jitter_s: each takes the delay, and up to the jitter more; none overtakes another.
    share, late_s: so many of them, by chance, take up to so much longer, and are overtaken.
    """

    delay_s: float = 0.0
    jitter_s: float = 0.0
    share: float = 0.0
    late_s: float = 0.0

    def __str__(self) -> str:
        return " ".join(str(value) for value in astuple(self))


@dataclass
class Counts:
    """What has become of frames.

    passed: came out. overtaken: of them, those before which a later one came out.
    lost: found no room, or the device did not take them.
    """

    passed: int = 0
    overtaken: int = 0
    lost: int = 0


class Way:
    """One direction of a wire: the frames in it. Pure; the clock is given."""

    def __init__(self, rng: Random) -> None:
        self.holding = Holding()
        self.counts = Counts()
        self._rng = rng
        self._held: list[tuple[float, int, bytes]] = []
        self._held_bytes = 0
        self._taken = 0
        self._newest_out = 0
        self._in_order_s = 0.0
        """When the last of those that do not overtake comes out."""

    @property
    def next_s(self) -> float | None:
        """When the next frame is to come out; None if there is none."""
        return self._held[0][0] if self._held else None

    def take(self, frame: bytes, now_s: float) -> None:
        """Take a frame in, and draw how long it is held."""
        if self._held_bytes + len(frame) > HELD_BYTES_MAX:
            self.counts.lost += 1
            return
        holding, rng = self.holding, self._rng
        due_s = now_s + holding.delay_s + holding.jitter_s * rng.random()
        due_s = max(due_s, self._in_order_s)
        if rng.random() < holding.share:
            due_s += holding.late_s * (1 - rng.random())
        else:
            self._in_order_s = due_s
        self._taken += 1
        self._held_bytes += len(frame)
        heapq.heappush(self._held, (due_s, self._taken, frame))

    def come_out(self, now_s: float) -> Iterator[bytes]:
        """Give the frames whose time has come."""
        while self._held and self._held[0][0] <= now_s:
            yield self._out(*heapq.heappop(self._held)[1:])

    def flow(self) -> Iterator[bytes]:
        """Give all frames, in the order in which they came; hold none any more."""
        self.holding = Holding()
        self._in_order_s = 0.0
        held, self._held = self._held, []
        for _, number, frame in sorted(held, key=lambda entry: entry[1]):
            yield self._out(number, frame)

    def _out(self, number: int, frame: bytes) -> bytes:
        self._held_bytes -= len(frame)
        self.counts.overtaken += number < self._newest_out
        self._newest_out = max(self._newest_out, number)
        return frame


class Wires:
    """The ends of all wires, and the ways between them."""

    def __init__(self, names: Sequence[str], rng: Random) -> None:
        """Make the devices.

        Raises:
            OSError: the system does not let us.
        """
        self._poll = select.poll()
        self._ways: dict[int, tuple[Way, int]] = {}
        """By the descriptor at which frames come in, with that at which they go out."""
        for name in names:
            near, far = open_tap(f"near-{name}"), open_tap(f"far-{name}")
            self._ways[near] = Way(rng), far
            self._ways[far] = Way(rng), near
        for fd in (sys.stdin.fileno(), *self._ways):
            self._poll.register(fd, select.POLLIN)

    def run(self) -> None:
        """Carry frames and obey commands until there are no more of these."""
        while True:
            for fd, _ in self._poll.poll(self._patience_ms()):
                if fd in self._ways:
                    self._read(fd)
                elif line := os.read(fd, FRAME_BYTES):
                    print(self._obey(*line.decode().split()), flush=True)
                else:
                    return
            now_s = time.monotonic()
            for way, out in self._ways.values():
                _write(out, way.come_out(now_s), way.counts)

    def _patience_ms(self) -> float | None:
        """Return how long nothing is to be done if nothing comes in; None is for ever."""
        due = [way.next_s for way, _ in self._ways.values() if way.next_s is not None]
        return max(min(due) - time.monotonic(), 0.0) * 1000 if due else None

    def _read(self, fd: int) -> None:
        way, _ = self._ways[fd]
        for _ in range(READ_MAX):
            try:
                frame = os.read(fd, FRAME_BYTES)
            except OSError:  # there are no more, or the device is down and has none
                return
            way.take(frame, time.monotonic())

    def _obey(self, command: str, *values: str) -> str:
        if command == "counts":
            return json.dumps(asdict(self._counts()))
        for way, out in self._ways.values():
            if command == "hold":
                way.holding = Holding(*map(float, values))
            else:
                _write(out, way.flow(), way.counts)
        return "done"

    def _counts(self) -> Counts:
        """Return the counts of all ways together."""
        each = [way.counts for way, _ in self._ways.values()]
        return Counts(*(sum(getattr(one, field.name) for one in each) for field in fields(Counts)))


def _write(out: int, frames: Iterator[bytes], counts: Counts) -> None:
    for frame in frames:
        try:
            os.write(out, frame)
        except OSError:  # the device is down, or has no room: as on any wire
            counts.lost += 1
        else:
            counts.passed += 1


def open_tap(name: str, device: Path = TUN) -> int:
    """Make a TAP device, and return its descriptor; the device lasts as long as that is open.

    Raises:
        OSError: the system does not let us, or there is one of that name.
    """
    fd = os.open(device, os.O_RDWR | os.O_NONBLOCK)
    try:
        wanted = struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI)
        fcntl.ioctl(fd, TUNSETIFF, wanted)
    except OSError:
        os.close(fd)
        raise
    return fd


def main() -> None:
    """Run the program."""
    seed, *names = sys.argv[1:]
    try:
        wires = Wires(names, Random(seed))
    except OSError as error:
        sys.exit(f"no TAP devices for {' '.join(names)}: {error.strerror}")
    wires.run()


if __name__ == "__main__":
    main()
