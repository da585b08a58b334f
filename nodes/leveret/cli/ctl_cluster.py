"""`leveret ctl cluster`: looks at the cluster and changes it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

import click
import trio

from leveret.cli.ask import ask_node, ask_once
from leveret.cli.ctl_options import node_options, print_json
from leveret.cli.ctl_tables import cluster_tables, rebalanced_table
from leveret.cli.exits import NotDone
from leveret.cli.find import find_node
from leveret.node.control.replies import (
    ClusterStatus,
    JoinGuide,
    Rebalanced,
    Removed,
    Token,
    Transferred,
)

LOOK_EVERY_S: Final = 0.5
GONE_WITHIN_S: Final = 120.0


@click.group()
def cluster() -> None:
    """Look at the cluster and change it.

    Any node may be asked: it asks the others where they must answer.

    \b
    Examples:
      leveret ctl cluster status
      leveret ctl cluster rebalance
      leveret ctl cluster remove node-3
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


@cluster.command()
@click.argument("node")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--no-wait", is_flag=True, help="Do not wait until all groups are without it.")
@node_options
def remove(
    *,
    node: str,
    yes: bool,
    no_wait: bool,
    data_dir: Path | None,
    node_name: str | None,
    as_json: bool,
) -> None:
    """Remove NODE (name or number) from the cluster, for ever.

    Its leaders move first, so clients of other nodes do not notice; its own lose their
    connections when it stops, which it does by itself. It may be down, or lost. Its number is
    not given to another node, and its data folder is of no use any more. More than half of the
    nodes that remain must be up.

    \b
    Examples:
      leveret ctl cluster remove node-3
      leveret ctl cluster remove 3 --yes --json
    """  # noqa: D301
    folder = find_node(data_dir, node_name, is_any_member=True)
    if not yes:
        click.confirm(f"Remove {node} for ever?", abort=True, err=True)
    reply = ask_once(folder, "cluster remove", Removed, node=node)
    if not as_json:
        click.echo(f"{reply.name} belongs to the cluster no more")
    if not no_wait:
        trio.run(partial(_wait_until_gone, folder, reply, is_quiet=as_json))
    if as_json:
        print_json(reply)


@cluster.command()
@node_options
def add(*, data_dir: Path | None, node_name: str | None, as_json: bool) -> None:
    """Print the command that makes another machine join.

    The new node asks the one that is asked here; both prove to each other that they hold the
    token. The command contains it: whoever reads it can join.

    \b
    Examples:
      leveret ctl cluster add
      leveret ctl cluster add --data-dir /var/lib/leveret
    """  # noqa: D301
    folder = find_node(data_dir, node_name, is_any_member=True)
    reply = ask_once(folder, "cluster add", JoinGuide)
    if as_json:
        print_json(reply)
        return
    join = f"leveret node --join {reply.address} --token {reply.token}"
    if reply.is_local:
        click.echo(
            f"On this machine, with free ports and a folder of its own:\n\n  {join}"
            " --peer-listen 127.0.0.1:25680 --listen 127.0.0.1:5680 --data-dir .leveret/new\n\n"
            f"Other machines do not reach {reply.address}. Before they can join, each node that is"
            " a member must be\nstarted again with --peer-listen and its address for the others."
        )
    else:
        click.echo(
            f"On the new machine, with its own address for HOST:\n\n  {join}"
            " --peer-listen HOST:25672\n\n"
            "The ports 25672 must be open between all machines. Later starts need no --join and no"
            " --token.\nIt votes when it has all data: see leveret ctl cluster status."
        )


@cluster.command()
@node_options
def token(*, data_dir: Path | None, node_name: str | None, as_json: bool) -> None:
    """Print the secret that the nodes share; whoever has it can join.

    \b
    Examples:
      leveret ctl cluster token > token
    """  # noqa: D301
    reply = ask_once(find_node(data_dir, node_name, is_any_member=True), "cluster token", Token)
    if as_json:
        print_json(reply)
    else:
        click.echo(reply.token)


async def _wait_until_gone(folder: Path, removed: Removed, *, is_quiet: bool) -> None:
    """Wait until no group has the node among its members, and say how far it is.

    Raises:
        NotDone: it takes too long; it goes on by itself.
    """
    said: list[int] = []
    with trio.move_on_after(GONE_WITHIN_S):
        while groups := _groups_with(
            removed.node, await ask_node(folder, "cluster status", ClusterStatus)
        ):
            if groups != said and not is_quiet:
                click.echo(f"  still in groups {' '.join(map(str, groups))}")
            said = groups
            await trio.sleep(LOOK_EVERY_S)
        if not is_quiet:
            click.echo(f"all groups are without {removed.name}")
        return
    raise NotDone(
        f"groups {' '.join(map(str, said))} still have {removed.name} after {GONE_WITHIN_S:g} s;"
        " that goes on by itself: look at leveret ctl cluster status"
    )


def _groups_with(node: int, status: ClusterStatus) -> list[int]:
    return [
        group.group for group in status.groups if node in {member.node for member in group.members}
    ]
