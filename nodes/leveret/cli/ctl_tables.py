"""How `leveret ctl` shows what a node answered."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from leveret.cli.figures import bytes_text, count_text, duration_text, rate_text, short_count
from leveret.node.control.replies import (
    ClusterStatus,
    GroupSeen,
    MemberSeen,
    NodeSeen,
    NodeStatus,
    Rebalanced,
)


def new_console() -> Console:
    """Return a console for tables; where the output is no terminal, lines are not cut."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200
    return console


def new_table(*titles: str) -> Table:
    """Return a table in the form that all have."""
    return Table(*titles, box=SIMPLE_HEAD, pad_edge=False)


def node_table(status: NodeStatus) -> None:
    """Print one node."""
    led = [group.group for group in status.groups if group.role == "leader"]
    totals, rates = status.totals, status.rates
    rows: list[tuple[str, str | Text]] = [
        ("state", _phase(status.phase)),
        ("cluster", status.cluster),
        ("process", f"{status.pid}, up {duration_text(status.uptime_s)}"),
        ("version", status.version),
        ("data", status.data_dir),
        ("clients", ", ".join([*status.amqp, *(f"{at} (TLS)" for at in status.amqp_tls)])),
        ("nodes", status.peers or "none: this node is alone"),
        ("linked to", _numbers(status.linked)),
        ("leads groups", _numbers(led)),
        ("alarms", Text(", ".join(status.alarms), style="red") if status.alarms else "none"),
        ("memory", _memory(status)),
        ("disk", f"{bytes_text(status.disk_free_bytes)} free"),
        ("disk alarm", f"below {bytes_text(status.disk_free_limit_bytes)} free"),
        ("connections", count_text(status.connections)),
        ("queues", f"{count_text(status.queues)} in the cluster"),
        ("ready here", f"{count_text(status.messages_ready)} messages"),
        ("unacked here", f"{count_text(status.messages_unacked)} messages"),
    ]
    rows += [
        (title, f"{rate_text(a_second)}, {count_text(total)} since the start")
        for title, a_second, total in (
            ("published", rates.published, totals.published),
            ("confirmed", rates.confirmed, totals.confirmed),
            ("delivered", rates.delivered, totals.delivered),
            ("settled", rates.settled, totals.settled),
        )
    ]
    table = Table.grid(padding=(0, 2))
    for title, text in rows:
        table.add_row(title, text)
    console = new_console()
    console.print(f"Node {status.node}, {status.name}")
    console.print(table)


def cluster_tables(status: ClusterStatus) -> None:
    """Print the nodes and the groups."""
    console = new_console()
    console.print(f"Cluster {status.cluster}, as node {status.asked} sees it")
    nodes = new_table("node", "name", "state", "leads groups", "clients", "version")
    for node in status.nodes:
        nodes.add_row(
            str(node.node),
            node.name,
            _state(node),
            _numbers(node.leads),
            ", ".join(node.addresses),
            node.version or "",
        )
    console.print(nodes)
    groups = new_table("group", "leader", "term", "committed", "applied", "last", "members")
    for group in status.groups:
        groups.add_row(
            f"{group.group} (catalog)" if group.group == 0 else str(group.group),
            str(group.leader) if group.leader else Text("none", style="red"),
            str(group.term),
            str(group.commit_index),
            str(group.applied_index),
            str(group.last_index),
            _members(group),
        )
    console.print(groups)
    console.print(
        "Members: -5 lacks five entries of the log, ? does not tell, * is a learner, which does not"
        " vote yet."
    )


def rebalanced_table(rebalanced: Rebalanced) -> None:
    """Print what a rebalance did."""
    console = new_console()
    for move in rebalanced.moved:
        console.print(f"group {move.group}: node {move.before} -> node {move.now}")
    for stay in rebalanced.failed:
        console.print(Text(f"group {stay.group}: {stay.text}", style="yellow"))
    leads = ", ".join(f"node {node} {count}" for node, count in rebalanced.leads.items())
    console.print(f"groups led: {leads}")


def _memory(status: NodeStatus) -> str:
    if status.memory_bytes is None:
        return "unknown"
    used = bytes_text(status.memory_bytes)
    if status.memory_limit_bytes is None:
        return used
    return f"{used}; alarm above {bytes_text(status.memory_limit_bytes)}"


def _state(node: NodeSeen) -> Text:
    if not node.is_up:
        return Text("down", style="red")
    return _phase(node.phase) if node.phase else Text("silent", style="yellow")


def _phase(phase: str) -> Text:
    return Text(phase, style="green" if phase == "serving" else "yellow")


def _members(group: GroupSeen) -> Text:
    return Text(", ").join(_member(member) for member in group.members)


def _member(member: MemberSeen) -> Text:
    """Return a member in few characters, for there may be many: see the line below the table."""
    text = str(member.node) if member.is_voter else f"{member.node}*"
    if member.lag:
        text += f" -{short_count(member.lag)}"
    if member.role is None:
        return Text(f"{text} ?", style="red")
    return Text(text, style="yellow" if member.lag or not member.is_voter else "")


def _numbers(numbers: list[int]) -> str:
    return " ".join(map(str, numbers)) or "none"
