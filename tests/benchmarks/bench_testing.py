"""Cost of brokers for tests: a start with its end, in memory and otherwise, and virtual time.

Run by `make bench`. It prints a table and asserts nothing: what must not grow is counted in
`tests/testing/test_costs.py`. Shown are the elapsed and the CPU time of all rounds together, and a
yardstick: the CPU time of ten million additions here and now.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import trio
from rich.console import Console
from rich.table import Table
from trio.testing import MockClock

from leveret.client import connect
from leveret.testing import blocking, broker, cluster

if TYPE_CHECKING:
    from collections.abc import Callable

STARTS = 1_000
CLUSTERS = 50
VIRTUAL_S = 600


def main() -> None:
    logging.disable(logging.CRITICAL)
    trio.run(_start, 20)  # all modules are there, and the interpreter knows the code
    table = Table("what", "how often", "elapsed s", "CPU s", "CPU ms each")
    for what, count, work in (
        ("broker in memory", STARTS, lambda: trio.run(_start, STARTS)),
        ("the same with a client's login", STARTS, lambda: trio.run(_log_in, STARTS)),
        ("broker on loopback", STARTS, lambda: trio.run(_listen, STARTS)),
        ("broker in a thread", STARTS, lambda: _start_threads(STARTS)),
        ("cluster of three, virtual time", CLUSTERS, lambda: _virtually(_form, CLUSTERS)),
        ("virtual second of a broker", VIRTUAL_S, lambda: _virtually(_idle, VIRTUAL_S)),
        ("virtual second of a cluster", VIRTUAL_S, lambda: _virtually(_idle_cluster, VIRTUAL_S)),
        ("yardstick", 1, lambda: sum(range(10_000_000))),
    ):
        elapsed_s, cpu_s = _timed(work)
        table.add_row(
            what, f"{count:,}", f"{elapsed_s:.2f}", f"{cpu_s:.2f}", f"{cpu_s / count * 1000:.2f}"
        )
    Console().print(table)


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    elapsed_s, cpu_s = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - elapsed_s, time.process_time() - cpu_s


def _virtually(work: Callable[..., object], count: int) -> None:
    trio.run(work, count, clock=MockClock(autojump_threshold=0))  # type: ignore[arg-type]


async def _start(count: int) -> None:
    for _ in range(count):
        async with broker():
            pass


async def _log_in(count: int) -> None:
    for _ in range(count):
        async with broker() as b, connect(b.url):
            pass


async def _listen(count: int) -> None:
    for _ in range(count):
        async with broker(loopback=True):
            pass


def _start_threads(count: int) -> None:
    for _ in range(count):
        with blocking.broker():
            pass


async def _form(count: int) -> None:
    for _ in range(count):
        async with cluster(3):
            pass


async def _idle(seconds: int) -> None:
    async with broker():
        await trio.sleep(seconds)


async def _idle_cluster(seconds: int) -> None:
    async with cluster(3):
        await trio.sleep(seconds)


if __name__ == "__main__":
    main()
