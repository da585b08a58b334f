"""A run in figures: numbers over time as a line of characters, and the table. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Final

from chaos.checkers.silence import Gap
from chaos.judge import Verdict

LEVELS: Final = " ▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], *, top: float | None = None) -> str:
    """Return a character a value; only 0 is a blank.

    top: what is as high as a character gets; the largest value by default.
    """
    highest = max(values, default=0) if top is None else top
    if highest <= 0:
        return " " * len(values)
    steps = len(LEVELS) - 2
    return "".join(
        LEVELS[0] if value <= 0 else LEVELS[1 + min(round(value / highest * steps), steps)]
        for value in values
    )


def table(verdict: Verdict) -> list[str]:
    """Return what a run did and found, as lines."""
    counts = verdict.counts
    faults = "  ".join(f"{kind} {count}" for kind, count in sorted(verdict.faults.items()))
    rows = [
        ("faults", f"{verdict.faults.total()}: {faults}"),
        ("published", f"{counts['published']:,}"),
        ("confirmed", f"{counts['confirmed']:,}"),
        ("delivered", f"{counts['delivered']:,}, marked redelivered {counts['redelivered']:,}"),
        (
            "silence",
            f"{_gaps(verdict.gaps)}, longest while a majority was there",
        ),
        ("", f"{_gaps(verdict.gaps_of_any_fault)}, longest at all"),
        ("recovery", _recovery(verdict.recoveries_s)),
    ]
    return [f"  {name:10} {value}" for name, value in rows]


def _gaps(gaps: Sequence[Gap]) -> str:
    return "  ".join(f"{gap.queue} {gap.long_s:.1f} s" for gap in gaps)


def _recovery(recoveries_s: Sequence[float]) -> str:
    if not recoveries_s:
        return "-"
    half, most = median(recoveries_s), max(recoveries_s)
    return f"{most:.1f} s, slowest after a fault; {half:.1f} s at most after half of them"
