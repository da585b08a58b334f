"""A run as a folder: what was done, what was seen, what was found, and how to do it again."""

from __future__ import annotations

import gzip
import json
import platform
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from chaos.history import Event, Operation, Replica
from chaos.judge import Limits, Verdict
from chaos.plan import steps_of_json, steps_to_json
from chaos.recorder import read
from chaos.report.page import page
from chaos.report.timeline import timeline
from chaos.runner import HISTORY, Plan, Run
from leveret.node.version import version

RUN: Final = "run.json"
COMPRESSED: Final = "history.jsonl.gz"
ROOT: Final = Path(__file__).parents[1]
FAILURES: Final = ROOT / "failures"
"""Where runs that failed are kept, with all data of the nodes."""
RUNS: Final = ROOT / "runs"
"""Where the others are kept, without data; the newest of a seed and commit."""


class NoRun(Exception):
    """A folder is not that of a run; the text says why."""


def commit() -> str:
    """Return the commit that is checked out, short; "unknown" outside of a repository."""
    git = shutil.which("git")
    if git is None:
        return "unknown"
    done = subprocess.run(  # noqa: S603 - a fixed question
        [git, "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"


def save(run: Run, verdict: Verdict, events: Sequence[Event], *, below: Path | None = None) -> Path:
    """Put a run that is over where it is kept, and return that folder.

    below: instead of `RUNS` or `FAILURES`.
    """
    plan = run.plan
    place = below or (RUNS if verdict.is_pass else FAILURES)
    broker = "" if plan.broker == "leveret" else f"{plan.broker}-"
    target = place / f"{broker}{plan.seed}-{commit()}"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    saved = {
        "seed": plan.seed,
        "commit": commit(),
        "leveret": version(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "nodes": plan.nodes,
        "seconds": plan.seconds,
        "kinds": plan.kinds,
        "rate": plan.rate,
        "mistake": plan.mistake,
        "broker": plan.broker,
        "limits": asdict(plan.limits),
        "failures": run.failures,
        "trouble": dict(run.clients.trouble),
        "steps": steps_to_json(run.nemesis.done),
    }
    (target / RUN).write_text(json.dumps(saved, indent=1) + "\n")
    with (run.folder / HISTORY).open("rb") as plain, gzip.open(target / COMPRESSED, "wb") as packed:
        shutil.copyfileobj(plain, packed)
    for log in run.folder.glob("*.log"):
        shutil.copy(log, target)
    if not verdict.is_pass:
        for data in [*run.folder.glob("node-*/"), *run.folder.glob("disk-[0-9]/")]:
            shutil.copytree(data, target / data.name, ignore=shutil.ignore_patterns("*.sock"))
    write_verdict(target, plan, verdict, events)
    return target


def write_verdict(target: Path, plan: Plan, verdict: Verdict, events: Sequence[Event]) -> None:
    """Write what was found, for people: `verdict.txt`, `timeline.svg`, `report.html`."""
    title = f"Chaos run against {plan.broker}, seed {plan.seed}, {plan.nodes} nodes, {commit()}"
    text = "\n".join([*verdict.complaints, verdict.line(plan.seed)])
    (target / "verdict.txt").write_text(text + "\n")
    (target / "timeline.svg").write_text(timeline(events, title=title, nodes=plan.nodes))
    (target / "report.html").write_text(
        page(events, verdict, title=title, seed=plan.seed, nodes=plan.nodes)
    )


def load(folder: Path) -> tuple[Plan, list[str], list[Event]]:
    """Return what a folder holds: the plan with the steps that were done, failures, history.

    Raises:
        NoRun: it is not the folder of a run.
    """
    try:
        saved = json.loads((folder / RUN).read_text())
        plan = Plan(
            saved["seed"],
            saved["nodes"],
            saved["seconds"],
            tuple(saved["kinds"]),
            saved["rate"],
            Limits(**saved["limits"]),
            tuple(steps_of_json(saved["steps"])),
            saved["mistake"],
            saved.get("broker", "leveret"),
        )
        return plan, saved["failures"], ordered(read(folder / COMPRESSED))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NoRun(f"{folder} is not the folder of a run: {error}") from None


def ordered(events: Iterable[Event]) -> list[Event]:
    """Return events by their times, those at once in the order in which they were written."""
    return sorted(events, key=_time)


def _time(event: Event) -> float:
    match event:
        case Operation():
            return event.began
        case Replica():
            return float("inf")
    return event.t
