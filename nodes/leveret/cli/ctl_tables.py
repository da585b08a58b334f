"""How `leveret ctl` shows what a node answered."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from leveret.cli.figures import bytes_text, count_text, duration_text, rate_text
from leveret.node.control.replies import ClusterStatus, GroupSeen, MemberSeen, NodeSeen, NodeStatus


def new_console() -> Console:
    """Return a console for tables; where the output is no terminal, lines are not cut."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200
    return console


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
        ("memory", "unknown" if status.memory_bytes is None else bytes_text(status.memory_bytes)),
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
    nodes = _table("node", "name", "state", "leads groups", "clients", "version")
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
    groups = _table("group", "leader", "term", "committed", "applied", "last", "members")
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
        "Members: a number alone is a node that has everything; others are behind by so many"
        " entries, or silent."
    )


def _table(*titles: str) -> Table:
    return Table(*titles, box=SIMPLE_HEAD, pad_edge=False)


def _state(node: NodeSeen) -> Text:
    if not node.is_up:
        return Text("down", style="red")
    return _phase(node.phase) if node.phase else Text("silent", style="yellow")


def _phase(phase: str) -> Text:
    return Text(phase, style="green" if phase == "serving" else "yellow")


def _members(group: GroupSeen) -> Text:
    return Text(", ").join(_member(member) for member in group.members)


def _member(member: MemberSeen) -> Text:
    if member.lag:
        return Text(f"{member.node} ({count_text(member.lag)} behind)", style="yellow")
    if member.role is None:
        return Text(f"{member.node} (silent)", style="red")
    return Text(str(member.node))


def _numbers(numbers: list[int]) -> str:
    return " ".join(map(str, numbers)) or "none"
