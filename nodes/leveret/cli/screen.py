"""What a local cluster shows: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from leveret.cli.local import LocalNode, State

_COLORS = {State.UP: "green", State.STARTING: "yellow", State.DOWN: "red"}
REFRESH_PER_S = 4.0


class Column(NamedTuple):
    """One column of the table of nodes."""

    title: str
    cell: Callable[[LocalNode], str | Text]


COLUMNS = (
    Column("node", lambda node: node.name),
    Column("process", lambda node: str(node.pid or "")),
    Column("clients", lambda node: str(node.address)),
    Column("state", lambda node: Text(node.state.value, style=_COLORS[node.state])),
    Column("starts", lambda node: str(node.starts)),
    Column("last end", lambda node: node.ending),
)


class Screen:
    """Prints events as lines, and below them, on a terminal, the table that is always true.

    A context manager: the table is there between enter and exit.
    """

    def __init__(
        self,
        *,
        has_table: bool,
        nodes: Callable[[], Sequence[LocalNode]],
        footer: Callable[[], Sequence[str]],
        columns: Sequence[Column] = COLUMNS,
        console: Console | None = None,
    ) -> None:
        """Take what to show; `has_table` False prints lines only, on a terminal too."""
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._nodes, self._footer, self._columns = nodes, footer, columns
        self.is_live = has_table and self._console.is_terminal
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self.is_live:
            # The last table is wiped at the end: what counts then is the lines.
            self._live = Live(
                console=self._console,
                get_renderable=self._render,
                auto_refresh=False,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def note(self, text: str) -> None:
        """Print one event."""
        self._console.print(Text(f"{time.strftime('%H:%M:%S')} {text}"))

    def say(self, text: str) -> None:
        """Print a block as it is."""
        self._console.print(Text(text))

    def refresh(self) -> None:
        """Draw the table anew; no-op without one."""
        if self._live is not None:
            self._live.refresh()

    def _render(self) -> Group:
        table = Table(*(column.title for column in self._columns))
        for node in self._nodes():
            table.add_row(*(column.cell(node) for column in self._columns))
        return Group(table, *(Text(line) for line in self._footer()))
