"""`python -m chaos`: faults against Leveret, and whether its promises hold."""

from __future__ import annotations

import sys
from collections import Counter

import click

from chaos.command import check, replay, run
from chaos.simulation.command import mutations, sim
from chaos.simulation.raft import SimulationFailed, run_seed


@click.group(invoke_without_command=True)
@click.pass_context
def chaos(context: click.Context) -> None:
    """Faults against Leveret. Without a command: a short round of each."""
    if context.invoked_subcommand is None:
        context.invoke(engines, first=0, seeds=20)
        context.invoke(sim, seeds="0-9")
        context.invoke(run, nodes="3", profile="default", strict=False)


chaos.add_command(sim)
chaos.add_command(mutations)
chaos.add_command(run)
chaos.add_command(replay)
chaos.add_command(check)


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
