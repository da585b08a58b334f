"""The screen of a run: a line a fault, and below it the nodes with their confirms, live.

Off a terminal the lines come alone, and the nodes' sparklines once at the end.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Final

import trio
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from chaos.judge import Verdict
from chaos.report.figures import sparkline, table
from chaos.runner import Run

WIDTH: Final = 50
"""How many moments a sparkline shows."""


class Screen:
    """Shows one run. Give `tell` to it."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._live: Live | None = None
        self._series: defaultdict[int, list[int]] = defaultdict(list)
        self._before: Counter[int] = Counter()
        self._looks = 0

    def tell(self, line: str) -> None:
        """Show a line for good."""
        if self._live is not None:
            self._live.console.print(Text(line), soft_wrap=True)
        else:
            print(line, flush=True)

    async def watch(self, run: Run) -> None:
        """Take a look each second, until cancelled; show it on a terminal."""
        with Live(console=self._console, auto_refresh=False, transient=True, screen=False) as live:
            if self._console.is_terminal:
                self._live = live
            try:
                while True:
                    await trio.sleep(1.0)
                    self._look(run)
                    if self._live is not None and run.phase != "starting":
                        live.update(self._table(run), refresh=True)
            finally:
                self._live = None

    def _look(self, run: Run) -> None:
        if run.phase == "starting":
            return
        now = Counter(run.clients.confirmed_by)
        for number in {node.number for node in run.clients.cluster.nodes} | set(self._series):
            series = self._series[number]
            series += [0] * (self._looks - len(series))
            series.append(now[number] - self._before[number])
        self._before = now
        self._looks += 1

    def _table(self, run: Run) -> Table:
        faults = ", ".join(kind for kind, count in run.nemesis.now.items() if count)
        counts = run.clients.history.counts
        table = Table(
            title=f"{run.phase}  {faults}",
            caption=f"{counts['confirmed']:,} confirmed, {len(run.clients.history.missing):,} of"
            " them not delivered yet",
            title_justify="left",
            caption_justify="left",
            box=None,
        )
        for column in ("node", "confirms a second", ""):
            table.add_column(column)
        for node in run.clients.cluster.nodes:
            series = self._series[node.number][-WIDTH:]
            style = "red" if node.number in run.nemesis.down else "green"
            table.add_row(
                Text(str(node), style=style),
                Text(sparkline(series).rjust(WIDTH), style=style),
                f"{series[-1] if series else 0:5}",
            )
        return table

    def finish(self, run: Run, verdict: Verdict) -> None:
        """Print what the run was like, but for its last line."""
        print("\nconfirms over the whole run, by the node through which they came")
        for number in sorted(self._series):
            series = self._series[number]
            print(f"  node {number:2} │{sparkline(_squeezed(series))}│ {sum(series):9,}")
        print()
        for line in table(verdict):
            print(line)
        for complaint in verdict.complaints:
            print(f"✗ {complaint}")


def _squeezed(series: list[int], width: int = 72) -> list[float]:
    """Return the series with at most `width` values, each the mean of its neighbours."""
    size = max(-(-len(series) // width), 1)
    return [sum(series[at : at + size]) / size for at in range(0, len(series), size)]
