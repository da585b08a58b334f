"""The node that a verb asks, and how its answer is printed: for people, programs or scripts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Final, TypeVar

import click
import msgspec
from rich.text import Text

from leveret.cli.ask import ask_once
from leveret.cli.ctl_options import node_options, print_json
from leveret.cli.ctl_tables import new_console, new_table
from leveret.cli.find import find_node

R = TypeVar("R")

VHOST: Final = click.option(
    "-p", "--vhost", default="/", show_default=True, metavar="VHOST", help="Virtual host."
)


class Target:
    """Which node is asked, and in which form its answers are printed."""

    def __init__(
        self, data_dir: Path | None, node_name: str | None, *, as_json: bool, is_quiet: bool
    ) -> None:
        self._data_dir = data_dir
        self._node_name = node_name
        self.as_json = as_json
        """Programs read it: all there is to know is wanted."""
        self._is_quiet = is_quiet

    def ask(self, do: str, kind: type[R], **arguments: object) -> R:
        """Have the node do something; return its answer. Blocks.

        Raises:
            Failure: it does not run, or did not do it; the text says what to do.
        """
        folder = find_node(self._data_dir, self._node_name, is_any_member=True)
        return ask_once(folder, do, kind, **arguments)

    def folder(self) -> Path:
        """Return the data folder of the one node that is meant, where another will not do.

        Raises:
            Failure: it is not clear which one is.
        """
        return find_node(self._data_dir, self._node_name)

    def say(self, reply: object, text: str) -> None:
        """Print what a change did: `text`, or the reply as JSON, or nothing."""
        if self.as_json:
            print_json(reply)
        elif not self._is_quiet:
            click.echo(text)

    def show(self, rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> None:
        """Print rows: a table, or JSON, or lines with tabs and without headings."""
        chosen = [{column: row.get(column) for column in columns} for row in rows]
        if self.as_json:
            print_json(chosen)
        elif self._is_quiet:
            for row in chosen:
                click.echo("\t".join(_line_cell(value) for value in row.values()))
        else:
            # Its headings are the names by which columns are asked for.
            table = new_table(*columns)
            for row in chosen:
                table.add_row(*(Text(_cell(value)) for value in row.values()))
            new_console().print(table)

    def warn_of(self, silent: Sequence[str], so: str) -> None:
        """Say on the standard error which nodes told nothing, and what that means."""
        if silent:
            click.echo(f"leveret: {', '.join(silent)} did not answer: {so}", err=True)


def asks(command: Callable[..., None]) -> Callable[..., None]:
    """Give a verb the options of all, which it gets as `target`."""

    @node_options
    @click.option("-q", "--quiet", is_flag=True, help="No headings, columns apart by tabs.")
    @wraps(command)
    def with_target(
        *,
        data_dir: Path | None,
        node_name: str | None,
        as_json: bool,
        quiet: bool,
        **arguments: object,
    ) -> None:
        target = Target(data_dir, node_name, as_json=as_json, is_quiet=quiet)
        command(target=target, **arguments)

    return with_target


def rows_of(replies: Sequence[object]) -> list[dict[str, object]]:
    """Return what a node listed as rows of columns."""
    return [msgspec.to_builtins(reply) for reply in replies]


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case [*items]:
            return f"[{', '.join(_cell(item) for item in items)}]"
        case {}:
            return msgspec.json.encode(value).decode()
    return str(value)


def _line_cell(value: object) -> str:
    """Return a cell in which neither a tab nor the end of a line stands for something else."""
    text = _cell(value)
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")
