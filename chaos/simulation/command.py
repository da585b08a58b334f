"""`python -m chaos sim`: seeds of whole simulated clusters, a line each, and a verdict."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from contextlib import closing

import click

from chaos.simulation.faults import KINDS
from chaos.simulation.fleet import Job, Summary, run_job, run_seeds
from chaos.simulation.mutations import MUTATIONS, mutated
from chaos.simulation.scenario import plan, simulate

FALLBACK_SEEDS = 20
"""How many seeds are tried for a mistake that its known seeds do not find any more."""
BAR_COLUMNS = 40
"""Columns of the bar of progress."""


def _seeds(text: str) -> range:
    first, _, last = text.partition("-")
    try:
        found = range(int(first), int(last or first) + 1)
    except ValueError:
        found = range(0)
    if not found:
        raise click.BadParameter(f"{text!r} is neither a seed nor seeds such as 0-299")
    return found


def _kinds(text: str) -> tuple[str, ...]:
    kinds = tuple(text.split(",")) if text else KINDS
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise click.BadParameter(
            f"{', '.join(unknown)}: there is no such fault; there are {', '.join(KINDS)}"
        )
    return kinds


@click.command()
@click.option("--seed", type=int, help="Run this seed alone.")
@click.option("--seeds", default="0-19", show_default=True, help="Run these seeds.")
@click.option("--faults", default="", help="Draw from these faults only, such as kill,isolate.")
@click.option("--nodes", type=int, help="Nodes of each cluster, instead of mostly three.")
@click.option("--mutation", default="", help="Plant this known mistake first.")
@click.option("--jobs", default=os.cpu_count() or 1, show_default=True, help="Processes at a time.")
@click.option("--trace", is_flag=True, help="Print all events and logs; for one seed.")
@click.option("--history", is_flag=True, help="Print the history as lines of JSON; for one seed.")
def sim(
    seed: int | None,
    seeds: str,
    faults: str,
    nodes: int | None,
    mutation: str,
    jobs: int,
    trace: bool,  # noqa: FBT001 - click gives it by name
    history: bool,  # noqa: FBT001
) -> None:
    """Simulate whole clusters: partitions, crashes, power loss, bad disks, from seeds.

    Prints a line a seed, and at the end PASS or FAIL. The same seed gives the same run.
    """
    kinds = _kinds(faults)
    if mutation and mutation not in MUTATIONS:
        raise click.BadParameter(f"{mutation!r} is none of {', '.join(MUTATIONS)}")
    if trace or history:
        if seed is None:
            raise click.BadParameter("--trace and --history are for one --seed")
        with mutated(mutation):
            result = simulate(plan(seed, kinds=kinds, nodes=nodes), show=print if trace else None)
        if history:
            for line in result.history.lines():
                print(line)
        for problem in result.problems:
            print(f"  {problem}")
        sys.exit(1 if result.problems else 0)
    chosen = _seeds(seeds) if seed is None else range(seed, seed + 1)
    wanted = [Job(number, kinds, nodes, mutation) for number in chosen]
    processes = max(1, min(jobs, len(wanted)))
    began_s = time.monotonic()
    failed: list[Summary] = []
    total: Counter[str] = Counter()
    simulated_s = 0.0
    for done, summary in enumerate(run_seeds(wanted, processes=processes), 1):
        _clear()
        print(summary.line, flush=True)
        for problem in summary.problems:
            print(f"  {problem}", flush=True)
        if summary.problems:
            failed.append(summary)
        total += summary.counts
        simulated_s += summary.simulated_s
        _progress(done, len(wanted), len(failed), time.monotonic() - began_s)
    _clear()
    options = "".join(
        f" --{name} {value}"
        for name, value in (("faults", faults), ("nodes", nodes), ("mutation", mutation))
        if value
    )
    for summary in failed:
        print(f"replay: python -m chaos sim --seed {summary.seed}{options} --trace")
    counts = " ".join(f"{name}={count:,}" for name, count in sorted(total.items()))
    print(
        f"{'FAIL' if failed else 'PASS'} seeds={len(wanted)} failed={len(failed)}"
        f" simulated={simulated_s / 3600:.2f}h {counts} in {time.monotonic() - began_s:.0f} s"
    )
    if failed:
        sys.exit(1)


@click.command()
@click.option("--only", default="", help="These mistakes only, such as no-sync,two-votes.")
@click.option("--hunt", is_flag=True, help="Look for seeds that find them, in place of the known.")
@click.option("--seeds", default="0-299", show_default=True, help="Where to hunt.")
@click.option("--jobs", default=os.cpu_count() or 1, show_default=True, help="Processes at a time.")
def mutations(only: str, hunt: bool, seeds: str, jobs: int) -> None:  # noqa: FBT001 - click's
    """Plant known mistakes one at a time, and see that the simulation finds each.

    Replays for each the seeds that are known to find it, until one does, and then some others.
    """
    names = only.split(",") if only else list(MUTATIONS)
    unknown = [name for name in names if name not in MUTATIONS]
    if unknown:
        raise click.BadParameter(f"{', '.join(unknown)}: there are {', '.join(MUTATIONS)}")
    outcomes = [_find(name, chosen=_seeds(seeds), is_hunt=hunt, jobs=jobs) for name in names]
    missed = [name for name, is_found in zip(names, outcomes, strict=True) if not is_found]
    print(
        f"{'FAIL' if missed else 'PASS'} mistakes={len(names)} found={len(names) - len(missed)}"
        f" missed={','.join(missed) or 'none'}"
    )
    if missed:
        sys.exit(1)


def _find(name: str, *, chosen: range, is_hunt: bool, jobs: int) -> bool:
    """Look for a seed that finds a mistake and passes without it; print a line about it."""
    mutation = MUTATIONS[name]
    if mutation.simulator == "scene":
        print(f"{name:<26} by a scene of its own in tests/chaos/test_mutations.py", flush=True)
        return True
    # As the product changes, so does what a seed means: then some others may do.
    seeds = chosen if is_hunt else (*mutation.seeds, *range(FALLBACK_SEEDS))
    wanted = [
        Job(seed, mutation.kinds, mutation=name, simulator=mutation.simulator) for seed in seeds
    ]
    cpu_s = 0.0
    with closing(run_seeds(wanted, processes=min(jobs, len(wanted)))) as summaries:
        for summary in summaries:
            cpu_s += summary.cpu_s
            if not summary.problems:
                continue
            if any(word in summary.problems[0] for word in ("NameError", "DoesNotFit")):
                print(f"{name:<26} is not a mistake but nonsense: {summary.problems[0]}")
                return False
            sane = run_job(Job(summary.seed, mutation.kinds, simulator=mutation.simulator))
            if sane.problems:
                print(f"{name:<26} seed {summary.seed} fails without it: {sane.problems[0]}")
                continue
            text = summary.problems[0][:90]
            print(f"{name:<26} seed {summary.seed:<4} {cpu_s:5.0f} s  {text}", flush=True)
            return True
    print(f"{name:<26} not found in {len(wanted)} seeds, {cpu_s:.0f} s", flush=True)
    return False


def _progress(done: int, total: int, failed: int, elapsed_s: float) -> None:
    if sys.stderr.isatty():
        bar = ("#" * (BAR_COLUMNS * done // total)).ljust(BAR_COLUMNS, ".")
        left_s = elapsed_s / done * (total - done)
        print(
            f"[{bar}] {done}/{total} failed={failed} {left_s:.0f} s left",
            end="",
            file=sys.stderr,
            flush=True,
        )


def _clear() -> None:
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
