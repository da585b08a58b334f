"""What a message between nodes costs: both ends in one process, over loopback TCP.

Run by `make bench`. Prints CPU µs a message (sender, kernel and receiver together) and MB/s, plain
and under TLS. Figures are to be compared within one run.
"""

from __future__ import annotations

import random
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import trio

from leveret.transport import (
    Address,
    CertificateAuthority,
    ClusterCredentials,
    Identity,
    NodeId,
    Peers,
    TlsFiles,
)

TOKEN = bytes(32)
SMALL = ("append", 7, 1234, 7, 1200, ())
LARGE = ("append", 7, 1234, 7, 1200, ((bytes(65536), 1235, 7),))
CASES = (
    ("small", SMALL, 200_000, 200),
    ("64 KiB", LARGE, 8_000, 16),
    ("one by one", SMALL, 5_000, 1),
)


def make(node: int, members: dict[NodeId, Address], tls: TlsFiles | None) -> Peers:
    return Peers(
        Identity(
            cluster="bench",
            node=NodeId(node),
            name=str(node),
            incarnation=1,
            boot=1,
            software="x",
            instance=b"x",
        ),
        ClusterCredentials("bench", TOKEN, tls),
        listen=Address("127.0.0.1", 0),
        members=members,
        rng=random.Random(1),
    )


async def measure(tls: tuple[TlsFiles | None, TlsFiles | None]) -> None:
    one, two = NodeId(1), NodeId(2)
    got = 0
    arrived = trio.Event()

    def take(_: NodeId, __: object) -> None:
        nonlocal got
        got += 1
        if got == wanted:
            arrived.set()

    async with trio.open_nursery() as nursery:
        first = make(1, {two: Address("127.0.0.1", 0)}, tls[0])
        first.on_message("raft.1", take)
        second = make(2, {one: await nursery.start(first.run)}, tls[1])
        up = trio.Event()
        second.on_up(lambda _: up.set())
        await nursery.start(second.run)
        await up.wait()
        for name, payload, count, burst in CASES:
            got, wanted = 0, 0
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(count // burst):
                arrived, wanted = trio.Event(), wanted + burst
                for _ in range(burst):
                    second.send(one, "raft.1", payload)
                await arrived.wait()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            size = 65536 if payload is LARGE else 30
            print(
                f"{'TLS' if tls[0] else 'plain':6}{name:11} bursts of {burst:4}: "
                f"{cpu / count * 1e6:7.2f} µs CPU, {wall / count * 1e6:7.2f} µs wall a message, "
                f"{size * count / wall / 1e6:7.1f} MB/s"
            )
        nursery.cancel_scope.cancel()


def main() -> None:
    trio.run(measure, (None, None))
    with tempfile.TemporaryDirectory() as name:
        now, folder = datetime.now(UTC), Path(name)
        authority = CertificateAuthority.create("bench", now=now)
        files = [authority.issue(NodeId(n), folder / str(n), now=now) for n in (1, 2)]
        trio.run(measure, (files[0], files[1]))


if __name__ == "__main__":
    main()
