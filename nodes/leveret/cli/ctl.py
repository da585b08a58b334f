"""`leveret ctl`: asks a running node, over the control socket in its data folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click
import msgspec

from leveret.cli.ask import ask_once
from leveret.cli.ctl_tables import cluster_tables, node_table
from leveret.cli.find import find_node
from leveret.node.control.replies import ClusterStatus, NodeStatus

F = TypeVar("F", bound=Callable[..., object])


def node_options(command: F) -> F:
    """Add what all verbs have: which node to ask, and how to print."""
    options = [
        click.option(
            "--data-dir",
            type=click.Path(path_type=Path, file_okay=False),
            metavar="DIR",
            help="Data folder of the node.",
        ),
        click.option(
            "--node",
            "node_name",
            metavar="NAME",
            help="Name or number of a node of `leveret cluster`, or below .leveret.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def print_json(reply: object) -> None:
    """Print an answer as indented JSON."""
    click.echo(msgspec.json.format(msgspec.json.encode(reply), indent=2).decode())


@click.group()
def ctl() -> None:
    """Ask a running node, or have it do something.

    A verb finds the node by itself when exactly one runs below .leveret in the current folder;
    else choose it with --data-dir or --node. Those about the cluster ask any of its nodes.
    Whoever may open the data folder of a node may ask it.

    \b
    Examples:
      leveret ctl status
      leveret ctl cluster status --node node-2
      leveret ctl cluster status --data-dir /var/lib/leveret --json

    \b
    Exit codes:
      0   done
      2   the command line is wrong
      4   the data folder is not readable
      5   no running node was found, or it does not answer
      6   the node refused, or could not do it now; the text says why
      70  internal failure
    """  # noqa: D301 - click's mark for lines that are kept as they are


@ctl.command()
@node_options
def status(*, data_dir: Path | None, node_name: str | None, as_json: bool) -> None:
    """Show one node: where it is, what it uses, what it does.

    \b
    Examples:
      leveret ctl status
      leveret ctl status --node 2 --json
    """  # noqa: D301
    reply = ask_once(find_node(data_dir, node_name), "status", NodeStatus)
    if as_json:
        print_json(reply)
    else:
        node_table(reply)


@ctl.group()
def cluster() -> None:
    """Look at the cluster and change it.

    Any node may be asked: it asks the others where they must answer.

    \b
    Examples:
      leveret ctl cluster status
    """  # noqa: D301


@cluster.command("status")
@node_options
def cluster_status(*, data_dir: Path | None, node_name: str | None, as_json: bool) -> None:
    """Show the cluster's nodes and groups: who is up, who leads, who is behind.

    Group 0 keeps the metadata, the others keep the messages. A group without a leader serves
    nobody; it has one again within seconds once a majority of its members is up.

    \b
    Examples:
      leveret ctl cluster status
      leveret ctl cluster status --node node-2
      leveret ctl cluster status --json | jq '.nodes[] | select(.is_up | not)'
    """  # noqa: D301
    folder = find_node(data_dir, node_name, is_any_member=True)
    reply = ask_once(folder, "cluster status", ClusterStatus)
    if as_json:
        print_json(reply)
    else:
        cluster_tables(reply)
