"""A run in figures: numbers over time as a line of characters, and the table. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

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
            "  ".join(f"{gap.queue} {gap.long_s:.1f} s" for gap in verdict.gaps)
            + ", longest while a majority was there",
        ),
        (
            "recovery",
            "-" if verdict.slowest is None else f"{verdict.slowest:.1f} s, slowest after a fault",
        ),
    ]
    return [f"  {name:10} {value}" for name, value in rows]
