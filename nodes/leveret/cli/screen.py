"""What a local cluster shows: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Self

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from leveret.cli.figures import short_count
from leveret.cli.local import LocalNode, State
from leveret.node.control.replies import NodeStatus

_COLORS = {State.UP: "green", State.STARTING: "yellow", State.DOWN: "red"}
REFRESH_PER_S: Final = 4.0
LAG_MUCH: Final = 100
"""Entries that a node may lack while it keeps up under load."""
WIDE: Final = 110
"""Columns of a terminal from which there is room for everything."""


class Row(NamedTuple):
    """One node: its process, what it told lately, and how many entries it lacks."""

    node: LocalNode
    status: NodeStatus | None = None
    lag: int | None = None


class Column(NamedTuple):
    """One column of the table of nodes."""

    title: str
    cell: Callable[[Row], str | Text]
    is_number: bool = False
    is_narrow: bool | None = None
    """Only on a narrow terminal, or only on a wide one; None: on both."""


def _state(row: Row) -> Text:
    node, status = row.node, row.status
    if node.state is State.UP and status is None:
        return Text("silent", style="yellow")
    return Text(node.state.value, style=_COLORS[node.state])


def _terms(status: NodeStatus) -> str:
    terms = [group.term for group in status.groups]
    low, high = min(terms), max(terms)
    return str(high) if low == high else f"{low}-{high}"


def _lag(row: Row) -> str | Text:
    if row.lag is None:
        return ""
    return Text(short_count(row.lag), style="yellow" if row.lag >= LAG_MUCH else "")


def _told(cell: Callable[[NodeStatus], str]) -> Callable[[Row], str]:
    """Return a cell that is empty while its node tells nothing."""
    return lambda row: cell(row.status) if row.status is not None else ""


COLUMNS: Final = (
    Column("node", lambda row: row.node.name),
    Column("process", lambda row: str(row.node.pid or ""), is_number=True),
    Column("port", lambda row: str(row.node.address.port), is_number=True, is_narrow=True),
    Column("clients", lambda row: str(row.node.address), is_narrow=False),
    Column("state", _state),
    Column(
        "leads",
        _told(lambda told: str(sum(group.role == "leader" for group in told.groups))),
        is_number=True,
    ),
    Column("term", _told(_terms), is_number=True),
    Column("lag", _lag, is_number=True),
    Column("conns", _told(lambda told: short_count(told.connections)), is_number=True),
    Column("ready", _told(lambda told: short_count(told.messages_ready)), is_number=True),
    Column("pub/s", _told(lambda told: short_count(told.rates.published)), is_number=True),
    Column("conf/s", _told(lambda told: short_count(told.rates.confirmed)), is_number=True),
    Column("dlvr/s", _told(lambda told: short_count(told.rates.delivered)), is_number=True),
    Column("starts", lambda row: str(row.node.starts), is_number=True, is_narrow=False),
    Column("last end", lambda row: row.node.ending, is_narrow=False),
)


class Screen:
    """Prints events as lines, and below them, on a terminal, the table that is always true.

    A context manager: the table is there between enter and exit.
    """

    def __init__(
        self,
        *,
        has_table: bool,
        rows: Callable[[], Sequence[Row]],
        footer: Callable[[], Sequence[str | Text]],
        console: Console | None = None,
    ) -> None:
        """Take what to show; `has_table` False prints lines only, on a terminal too."""
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._rows, self._footer = rows, footer
        self.is_live = has_table and self._console.is_terminal
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self.is_live:
            # The last table is wiped at the end: what counts then is the lines.
            self._live = Live(self, console=self._console, auto_refresh=False, transient=True)
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

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        is_narrow = options.max_width < WIDE
        columns = [c for c in COLUMNS if c.is_narrow is None or c.is_narrow == is_narrow]
        table = Table(
            box=None, padding=(0, 1 if is_narrow else 2, 0, 0), pad_edge=False, header_style="bold"
        )
        for column in columns:
            table.add_column(
                column.title, justify="right" if column.is_number else "left", no_wrap=True
            )
        for row in self._rows():
            table.add_row(*(column.cell(row) for column in columns))
        lines = [line if isinstance(line, Text) else Text(line) for line in self._footer()]
        yield Group(Text(), table, *lines)
