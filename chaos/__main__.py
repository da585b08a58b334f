"""`python -m chaos`: faults against Leveret, and whether its promises hold."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import click

from chaos.kill import kill_often
from chaos.load import LoadEnded
from chaos.simulation.command import mutations, sim
from chaos.simulation.raft import SimulationFailed, run_seed
from tests.support import nodes


@click.group(invoke_without_command=True)
@click.pass_context
def chaos(context: click.Context) -> None:
    """Faults against Leveret. Without a command: a short round of each."""
    if context.invoked_subcommand is None:
        context.invoke(engines, first=0, seeds=20)
        context.invoke(sim, seeds="0-9")
        context.invoke(kill, runs=5, seed=0)


chaos.add_command(sim)
chaos.add_command(mutations)


@chaos.command()
@click.option("--runs", default=10, show_default=True, help="How often the node is killed.")
@click.option("--seed", default=0, show_default=True, help="Draws the moments of the blows.")
def kill(runs: int, seed: int) -> None:
    """SIGKILL a single node in the middle of a confirmed stream, and look what it kept.

    Prints a line a run. The data and the log stay if a promise was broken.
    """
    folder = Path(tempfile.mkdtemp(prefix="leveret-kill-"))
    node = nodes.node(folder)
    problem = ""
    verdicts = []
    try:
        node.start()
        verdicts = kill_often(node, runs=runs, seed=seed)
    except (AssertionError, LoadEnded, nodes.NodeFailed) as error:
        problem = f"  {error}"
    finally:
        node.kill()
    is_clean = not problem and all(verdict.is_clean for verdict in verdicts)
    print(
        f"{'PASS' if is_clean else 'FAIL'} runs={len(verdicts)}"
        f" confirmed={sum(verdict.confirmed for verdict in verdicts)}"
        f" lost={sum(len(verdict.lost) for verdict in verdicts)}"
        f" duplicates={sum(len(verdict.duplicates) for verdict in verdicts)}"
        f" disordered={sum(len(verdict.disordered) for verdict in verdicts)}{problem}"
    )
    if is_clean:
        shutil.rmtree(folder)
    else:
        print(f"kept: {folder}")
        sys.exit(1)


@chaos.command()
@click.option("--first", default=0, show_default=True, help="The first seed.")
@click.option("--seeds", default=20, show_default=True, help="How many.")
def engines(first: int, seeds: int) -> None:
    """Run seeds of the consensus engines alone: crashes, cut links, elections, snapshots."""
    failed, total = 0, Counter[str]()
    for seed in range(first, first + seeds):
        try:
            total += run_seed(seed)
        except SimulationFailed as failure:
            failed += 1
            print(f"seed {seed}: {failure}", flush=True)
    counts = " ".join(f"{name}={count}" for name, count in sorted(total.items()))
    print(f"{'FAIL' if failed else 'PASS'} seeds={seeds} failed={failed} {counts}")
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    chaos(prog_name="python -m chaos")
