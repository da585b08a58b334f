"""What all verbs of `leveret ctl` have: which node to ask, and how to print."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click
import msgspec

F = TypeVar("F", bound=Callable[..., object])


def node_options(command: F) -> F:
    """Add the options to a verb."""
    options = [
        click.option(
            "--data-dir",
            type=click.Path(path_type=Path, file_okay=False),
            metavar="DIR",
            help="Data folder of the node to ask.",
        ),
        click.option(
            "--node",
            "node_name",
            metavar="NAME",
            help="Name or number of the node to ask, in .leveret/cluster or .leveret.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def print_json(reply: object) -> None:
    """Print an answer as indented JSON."""
    click.echo(msgspec.json.format(msgspec.json.encode(reply), indent=2).decode())
