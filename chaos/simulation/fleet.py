"""Runs seeds in worker processes, one a core, and gives back a short summary of each in order."""

from __future__ import annotations

import gc
import multiprocessing
import signal
import time
import traceback
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from chaos.simulation.faults import KINDS
from chaos.simulation.mutations import mutated
from chaos.simulation.raft import SimulationFailed, run_seed
from chaos.simulation.scenario import plan, simulate

if TYPE_CHECKING:
    from types import FrameType

CPU_LIMIT_S: Final = 180.0
"""CPU time of one seed (mostly 2 s), after which its clock is taken to stand still."""
SEEDS_PER_PROCESS: Final = 50
"""A worker is replaced after so many, which gives its memory back."""


@dataclass(frozen=True)
class Job:
    """A seed to run.

    kinds: faults to draw from. nodes: how many, instead of drawing. mutation: a planted mistake.
    simulator: "nodes", or "engines" for consensus alone.
    """

    seed: int
    kinds: tuple[str, ...] = KINDS
    nodes: int | None = None
    mutation: str = ""
    simulator: str = "nodes"


@dataclass(frozen=True)
class Summary:
    """What a seed gave; see `scenario.Result`."""

    seed: int
    problems: tuple[str, ...]
    trace: str
    simulated_s: float
    cpu_s: float
    counts: Counter[str]
    faults: tuple[str, ...]

    @property
    def line(self) -> str:
        """One line about it."""
        counts = " ".join(f"{name}={count}" for name, count in sorted(self.counts.items()))
        state = "FAIL" if self.problems else "ok"
        return (
            f"seed {self.seed}: {state} {self.simulated_s:.1f} s in {self.cpu_s:.1f} s, {counts},"
            f" trace {self.trace[:12]}: {' '.join(self.faults) or 'no faults'}"
        )


class StoodStill(Exception):
    """The program did not let the virtual clock go on."""


def run_seeds(jobs: Iterable[Job], *, processes: int) -> Generator[Summary, None, None]:
    """Run all, in so many processes, and yield what they gave in the order of `jobs`."""
    if processes <= 1:
        yield from map(run_job, jobs)
        return
    # Fresh interpreters: what one has seen must not reach into a run.
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, maxtasksperchild=SEEDS_PER_PROCESS) as pool:
        yield from pool.imap(run_job, jobs)


def run_job(job: Job) -> Summary:
    """Run one seed."""
    planned = plan(job.seed, kinds=job.kinds, nodes=job.nodes)
    began_s = time.process_time()
    problems: tuple[str, ...]
    trace, simulated_s, counts = "", 0.0, Counter[str]()
    try:
        with _limited(), mutated(job.mutation):
            if job.simulator == "engines":
                counts, problems = run_seed(job.seed), ()
            else:
                result = simulate(planned)
                problems = tuple(result.problems)
                trace, simulated_s, counts = result.trace, result.simulated_s, result.counts
    except SimulationFailed as error:
        problems = (str(error),)
    except Exception as error:  # noqa: BLE001 - the runner reports whatever a seed ends with
        problems = (f"the run ended with {_last_words(error)}",)
    gc.collect()
    return Summary(
        seed=job.seed,
        problems=problems,
        trace=trace,
        simulated_s=simulated_s,
        cpu_s=time.process_time() - began_s,
        counts=counts,
        faults=tuple(f"{f.at_s:.1f}:{f.kind}/{f.node}/{f.long_s:.1f}" for f in planned.faults),
    )


def _last_words(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    where = " > ".join(f"{frame.name}:{frame.lineno}" for frame in frames)
    return f"{type(error).__name__} {error} ({where})"


@contextmanager
def _limited() -> Iterator[None]:
    """Raise StoodStill in a run that takes far too long; in a main thread only."""

    def stop(_: int, frame: FrameType | None) -> None:
        raise StoodStill("".join(traceback.format_stack(frame)[-3:]))

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, CPU_LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
