"""`leveret ctl cluster`: looks at the cluster and changes it."""

from __future__ import annotations

from pathlib import Path

import click

from leveret.cli.ask import ask_once
from leveret.cli.ctl_options import node_options, print_json
from leveret.cli.ctl_tables import cluster_tables, rebalanced_table
from leveret.cli.exits import NotDone
from leveret.cli.find import find_node
from leveret.node.control.replies import (
    ClusterStatus,
    Rebalanced,
    Transferred,
)


@click.group()
def cluster() -> None:
    """Look at the cluster and change it.

    Any node may be asked: it asks the others where they must answer.

    \b
    Examples:
      leveret ctl cluster status
      leveret ctl cluster rebalance
    """  # noqa: D301 - click's mark for lines that are kept as they are


@cluster.command()
@node_options
def status(*, data_dir: Path | None, node_name: str | None, as_json: bool) -> None:
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


@cluster.command()
@click.argument("group", type=int)
@click.argument("node")
@node_options
def transfer(
    *, group: int, node: str, data_dir: Path | None, node_name: str | None, as_json: bool
) -> None:
    """Have NODE (name or number) lead GROUP.

    Clients go on; what they acknowledged in the last moment may come again, marked redelivered.
    It stays so until NODE starts again or dies, or until a rebalance.

    \b
    Examples:
      leveret ctl cluster transfer 3 node-2
      leveret ctl cluster transfer 0 1
    """  # noqa: D301
    folder = find_node(data_dir, node_name, is_any_member=True)
    reply = ask_once(folder, "cluster transfer", Transferred, group=group, node=node)
    if as_json:
        print_json(reply)
    elif reply.before == reply.now:
        click.echo(f"node {reply.now} leads group {reply.group} already")
    else:
        click.echo(f"node {reply.now} leads group {reply.group}; before it was node {reply.before}")


@cluster.command()
@node_options
def rebalance(*, data_dir: Path | None, node_name: str | None, as_json: bool) -> None:
    """Spread the leaders evenly over the nodes that are up.

    Nodes do that by themselves when they start; this does it now, takes back all transfers, and
    shares out what a node that is down should lead.

    \b
    Examples:
      leveret ctl cluster rebalance
    """  # noqa: D301
    folder = find_node(data_dir, node_name, is_any_member=True)
    reply = ask_once(folder, "cluster rebalance", Rebalanced)
    if as_json:
        print_json(reply)
    else:
        rebalanced_table(reply)
    if reply.failed:
        first = reply.failed[0]
        raise NotDone(
            f"{len(reply.failed)} groups stay where they are; group {first.group}: {first.text}."
            " Try again"
        )
