"""`leveret ctl`: asks a running node, over the control socket in its data folder."""

from __future__ import annotations

from pathlib import Path

import click

from leveret.cli.ask import ask_once
from leveret.cli.ctl_alarms import VERBS as ALARM_VERBS
from leveret.cli.ctl_application import VERBS as APPLICATION_VERBS
from leveret.cli.ctl_certificates import VERBS as CERTIFICATE_VERBS
from leveret.cli.ctl_cluster import cluster
from leveret.cli.ctl_definitions import VERBS as DEFINITION_VERBS
from leveret.cli.ctl_limits import VERBS as LIMIT_VERBS
from leveret.cli.ctl_lists import VERBS as LIST_VERBS
from leveret.cli.ctl_options import node_options, print_json
from leveret.cli.ctl_policies import VERBS as POLICY_VERBS
from leveret.cli.ctl_queues import VERBS as QUEUE_VERBS
from leveret.cli.ctl_tables import node_table
from leveret.cli.ctl_topics import VERBS as TOPIC_VERBS
from leveret.cli.ctl_users import VERBS as USER_VERBS
from leveret.cli.ctl_vhosts import VERBS as VHOST_VERBS
from leveret.cli.find import find_node
from leveret.node.control.replies import NodeStatus


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
      leveret ctl add_user ada
      leveret ctl set_permissions -p / ada '.*' '.*' '.*'

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


ctl.add_command(cluster)
for verb in (
    *LIST_VERBS,
    *QUEUE_VERBS,
    *USER_VERBS,
    *TOPIC_VERBS,
    *POLICY_VERBS,
    *VHOST_VERBS,
    *LIMIT_VERBS,
    *DEFINITION_VERBS,
    *ALARM_VERBS,
    *APPLICATION_VERBS,
    *CERTIFICATE_VERBS,
):
    ctl.add_command(verb)
