"""What `leveret perf` shows while it runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections import deque
from typing import Final, Self

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from leveret.cli.figures import bytes_text, duration_text
from leveret.cli.perf_tables import HEADER, line_of, load_text, ms_text, notes_of, rate_of
from leveret.perf.plan import Plan
from leveret.perf.result import Frame, Latency

_BARS: Final = " ▁▂▃▄▅▆▇█"
_HISTORY: Final = 240
"""Intervals that are kept for the curves: as many as the widest terminal has columns."""
_HEADER_EVERY: Final = 30
_LABEL: Final = 13
_FIGURE: Final = 9


class PerfScreen:
    """Shows a run after the other. A context manager: the live table is there within it."""

    def __init__(self, *, is_plain: bool, console: Console | None = None) -> None:
        """Take how to show; `is_plain` prints lines on a terminal too."""
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._is_live = not is_plain and self._console.is_terminal
        self._live: Live | None = None
        self._broker = ""
        self._place = ""
        self._plan: Plan | None = None
        self._frames: deque[Frame] = deque(maxlen=_HISTORY)
        self._sums = [0, 0, 0]
        self._span_s = 0.0
        self._lines = 0

    def __enter__(self) -> Self:
        if self._is_live:
            # The last table is wiped at the end: the totals say it all.
            self._live = Live(self, console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def begin(self, broker: str, plan: Plan, place: str) -> None:
        """Show another run; place: which one it is, such as `slice 2 of 3`."""
        is_first = self._plan is None
        self._broker, self._plan, self._place = broker, plan, place
        self._frames.clear()
        self._sums, self._span_s = [0, 0, 0], 0.0
        if not self._is_live:
            if is_first:
                self.say(load_text(plan))
            self.say(f"{broker}{place and f', {place}'}")
            self._lines = 0
        self._refresh()

    def add(self, frame: Frame) -> None:
        """Show an interval."""
        self._frames.append(frame)
        if frame.phase == "load":
            counts = (frame.published, frame.confirmed, frame.consumed)
            self._sums = [total + count for total, count in zip(self._sums, counts, strict=True)]
            self._span_s += frame.span_s
        if not self._is_live:
            if self._lines % _HEADER_EVERY == 0:
                self.say(HEADER)
            self._lines += 1
            self.say(line_of(frame))
        self._refresh()

    def say(self, text: str) -> None:
        """Print a block as it is."""
        self._console.print(Text(text))

    def show(self, table: Table) -> None:
        """Print a table."""
        self._console.print(table)

    def _refresh(self) -> None:
        if self._live is not None:
            self._live.refresh()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        plan = self._plan
        if plan is None:
            yield Text("connecting …", style="dim")
            return
        title = Text.assemble((self._broker, "bold"), f"  {self._progress(plan)}")
        parts: list[Text] = [title, Text(load_text(plan), style="dim"), Text()]
        if self._frames:
            frame = self._frames[-1]
            parts += self._rates(plan, options.max_width)
            parts.append(Text())
            parts += _latencies(frame)
            parts.append(Text())
            parts += _state(frame)
        yield Group(*parts)

    def _progress(self, plan: Plan) -> str:
        at_s = self._frames[-1].at_s if self._frames else 0.0
        parts = [self._place] if self._place else []
        if self._frames and self._frames[-1].phase != "load":
            parts.append(self._frames[-1].phase)
        until = f" of {duration_text(plan.warm_up_s + plan.duration_s)}" if plan.duration_s else ""
        parts.append(f"{duration_text(at_s)}{until}")
        return ", ".join(parts)

    def _rates(self, plan: Plan, width: int) -> list[Text]:
        room = max(0, width - _LABEL - 2 * _FIGURE - 2)
        heading = f"{'':{_LABEL}}{'now':>{_FIGURE}}{'mean':>{_FIGURE}}"
        lines = [Text(heading, style="bold")]
        names = ("published/s", "confirmed/s", "consumed/s")
        shown = [frame for frame in self._frames if frame.span_s >= plan.interval_s / 2]
        for place, name in enumerate(names):
            rates = [rate_of(_counts(frame)[place], frame) for frame in shown]
            now = rates[-1] if rates else 0.0
            mean = self._sums[place] / self._span_s if self._span_s else 0.0
            text = f"{name:{_LABEL}}{now:>{_FIGURE},.0f}{mean:>{_FIGURE},.0f}  "
            lines.append(Text.assemble(text, (curve_of(rates[-room:] if room else []), "green")))
        return lines


def _counts(frame: Frame) -> tuple[int, int, int]:
    return frame.published, frame.confirmed, frame.consumed


def curve_of(values: list[float]) -> str:
    """Return values as bars of eighths of a line, from 0 to the largest.

    Example:
        >>> curve_of([0, 1, 4, 8])
        ' ▁▄█'
    """
    top = max(values, default=0.0)
    if not top:
        return ""
    return "".join(_BARS[round(value / top * (len(_BARS) - 1))] for value in values)


def _latencies(frame: Frame) -> list[Text]:
    heading = "".join(f"{name:>{_FIGURE}}" for name in ("p50", "p95", "p99", "max"))
    lines = [Text(f"{'':{_LABEL}}{heading}", style="bold")]
    for name, of in (("confirm ms", frame.confirm_ms), ("delivery ms", frame.delivery_ms)):
        lines.append(Text(f"{name:{_LABEL}}" + _figures(of)))
    return lines


def _figures(of: Latency) -> str:
    values = (of.p50, of.p95, of.p99, of.max)
    return "".join(f"{ms_text(value) if of.count else '-':>{_FIGURE}}" for value in values)


def _state(frame: Frame) -> list[Text]:
    parts = [f"unconfirmed {frame.unconfirmed:,}"]
    if frame.span_s:
        if frame.broker_cpu_s is not None and frame.broker_memory_bytes is not None:
            parts.append(
                f"broker {frame.broker_cpu_s / frame.span_s:.0%} CPU,"
                f" {bytes_text(frame.broker_memory_bytes)}"
            )
        parts.append(f"clients {frame.client_cpu_s / frame.span_s:.0%} CPU")
    lines = [Text("   ".join(parts))]
    notes = [note for note in notes_of(frame) if note != frame.phase]
    if notes:
        lines.append(Text("   ".join(notes), style="yellow"))
    return lines
