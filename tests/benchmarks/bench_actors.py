"""Cost of the actor kernel: a tell by burst size, an ask, a timer, an idle actor.

Run by `make bench`. It prints a table and asserts nothing: what must not grow is counted in
`tests/actors`, since a time on a shared machine proves little. The best of several short rounds is
shown, in CPU time of the process, with the teller's own checkpoint as a line of its own.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from typing import TYPE_CHECKING

import trio
import trio.testing
from rich.console import Console
from rich.table import Table

from leveret.actors import Actor, Ref, Request, Supervisor, Timers, supervise

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ROUNDS = 15
TELLS_A_ROUND = 32_000
ASKS_A_ROUND = 1_000
IDLE_ACTORS = 1_000


class Sink(Actor[object]):
    """Takes anything; answers requests."""

    def receive(self, message: object) -> None:
        if isinstance(message, Request):
            message.reply(None)


async def best_us(count: int, work: Callable[[], Awaitable[None]]) -> float:
    """Return the least CPU time in µs of one of `count` units of `work`, over all rounds."""
    best_s = float("inf")
    for _ in range(ROUNDS):
        began_s = time.process_time()
        await work()
        best_s = min(best_s, time.process_time() - began_s)
    return best_s / count * 1e6


async def checkpoints() -> None:
    for _ in range(ASKS_A_ROUND):
        await trio.lowlevel.checkpoint()


async def tell_in_bursts(ref: Ref[object], burst: int) -> None:
    tell = ref.tell
    for _ in range(TELLS_A_ROUND // burst):
        for message in range(burst):
            tell(message)
        await trio.lowlevel.checkpoint()


async def ask_one_by_one(ref: Ref[object]) -> None:
    for _ in range(ASKS_A_ROUND):
        request: Request[None] = Request()
        await ref.ask(request, within_s=60)


async def set_and_cancel(timers: Timers, ref: Ref[object]) -> None:
    for number in range(TELLS_A_ROUND):
        timers.after(number % 1_000, ref, None).cancel()


async def idle_bytes(supervisor: Supervisor) -> float:
    """Return the bytes that one parked actor holds, its task included."""
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(IDLE_ACTORS):
        supervisor.spawn(Sink, f"idle {number}")
    await trio.testing.wait_all_tasks_blocked()
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (after - before) / IDLE_ACTORS


async def main() -> None:
    table = Table("what", "µs", "per second")

    def row(what: str, cost_us: float) -> None:
        table.add_row(what, f"{cost_us:.2f}", f"{1e6 / cost_us:,.0f}")

    async with supervise() as supervisor:
        ref = supervisor.spawn(Sink, "sink")
        await trio.testing.wait_all_tasks_blocked()
        row("checkpoint of the teller", await best_us(ASKS_A_ROUND, checkpoints))
        for burst in (1, 16, 256):

            async def work(burst: int = burst) -> None:
                await tell_in_bursts(ref, burst)

            row(f"tell, bursts of {burst}", await best_us(TELLS_A_ROUND, work))
        row("ask", await best_us(ASKS_A_ROUND, lambda: ask_one_by_one(ref)))
        timers = Timers()
        row("timer, cancelled", await best_us(TELLS_A_ROUND, lambda: set_and_cancel(timers, ref)))
        table.add_row("idle actor", f"{await idle_bytes(supervisor) / 1024:.2f} KiB", "")
    Console().print(table)


if __name__ == "__main__":
    trio.run(main)
