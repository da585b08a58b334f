"""Whole simulated clusters: the same seed is the same run, and no seed breaks a promise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from chaos.simulation.faults import KINDS
from chaos.simulation.fleet import Job, run_job
from chaos.simulation.scenario import plan

ROOT = Path(__file__).parents[2]
SEEDS = "0-299"


def simulate(*arguments: str, hash_seed: str = "random") -> str:
    """Run the command in a process of its own; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "chaos", "sim", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=3600,
        check=False,
    )
    print(done.stdout)
    return done.stdout


def test_a_seed_is_the_same_run_twice_and_in_new_processes_and_under_other_hash_seeds() -> None:
    seed = next(seed for seed in range(100) if len(plan(seed).faults) >= 3)

    traces = {run_job(Job(seed)).trace[:12] for _ in range(2)}
    for hash_seed in ("0", "1", "77"):
        text = simulate("--seed", str(seed), hash_seed=hash_seed)
        traces |= set(re.findall(r"trace (\w+)", text))

    assert len(traces) == 1
    assert traces != {""}


def test_another_seed_is_another_run() -> None:
    assert run_job(Job(13)).trace != run_job(Job(15)).trace


def test_the_plans_of_the_seeds_draw_every_kind_of_fault() -> None:
    drawn = {fault.kind for seed in range(300) for fault in plan(seed).faults}

    assert drawn == set(KINDS)


def test_no_seed_breaks_a_promise() -> None:
    text = simulate("--seeds", SEEDS, "--jobs", str(os.cpu_count() or 1))

    assert text.splitlines()[-1].startswith("PASS seeds=300 failed=0 ")
