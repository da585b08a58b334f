"""What a person reads when a node or a cluster is up: where it is, and how to use it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from leveret.node.config import NodeConfig
from leveret.node.endpoints import Endpoints
from leveret.node.membership import CREDENTIALS_FOLDER, Membership
from leveret.transport.identity import Address


def url_of(address: Address, *, tls: bool = False) -> str:
    """Return the URL for a client on this machine; an address of all interfaces is loopback."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104
    scheme = "amqps" if tls else "amqp"
    return f"{scheme}://guest:guest@{Address(host, address.port)}/"


def pika_lines(url: str) -> list[str]:
    """Return a Python program of three lines that sends a message."""
    return [
        "import pika",
        f'channel = pika.BlockingConnection(pika.URLParameters("{url}")).channel()',
        'channel.queue_declare("hello"); channel.basic_publish("", "hello", b"Hello, hare!")',
    ]


def node_welcome(
    config: NodeConfig,
    endpoints: Endpoints,
    *,
    version: str,
    pid: int,
    shows_secrets: bool = False,
) -> str:
    """Return the block that a node prints when it is ready.

    shows_secrets: print the token of the command to join, as to a person at a terminal and not to
        a log; else print where it is.
    """
    name = endpoints.member.name if endpoints.member is not None else config.node.name
    urls = [url_of(address) for address in endpoints.amqp]
    urls += [url_of(address, tls=True) for address in endpoints.amqp_tls]
    rows = [
        ("clients", ", ".join(map(str, [*endpoints.amqp, *endpoints.amqp_tls]))),
        ("data", str(config.node.data_dir)),
        ("connect", "  ".join(urls)),
    ]
    if endpoints.peers is not None:
        rows.insert(1, ("nodes", f"{endpoints.peers} ({_place(config, endpoints.member)})"))
        if endpoints.token is not None:
            rows.append(("join", _join_command(config, endpoints, shows_secrets=shows_secrets)))
    title = f"Leveret {version}, node {name}, process {pid}, is ready"
    return _block(title, rows, urls[:1])


def _place(config: NodeConfig, member: Membership | None) -> str:
    """Return which one of which nodes it is."""
    if member is None:
        return f"this is {config.node.id} of {', '.join(map(str, config.node.cluster))}"
    members = ", ".join(f"{node}@{at}" for node, at in sorted(member.members.items()))
    return f"this is {member.node} of {members}"


def _join_command(config: NodeConfig, endpoints: Endpoints, *, shows_secrets: bool) -> str:
    """Return the command by which another node joins this one."""
    assert endpoints.token is not None
    assert endpoints.peers is not None
    at = endpoints.peers
    if endpoints.member is not None:  # bound to all interfaces, it is reached at another address
        at = endpoints.member.members.get(endpoints.member.node, at)
    command = f"leveret node --join {at} --peer-listen HOST:PORT --token"
    if shows_secrets:
        return f"{command} {endpoints.token.hex()}"
    file = config.node.token_file or config.node.data_dir / CREDENTIALS_FOLDER / "token"
    return f"{command}-file FILE  (a copy of {file})"


def cluster_welcome(urls: Sequence[str], folder: Path) -> str:
    """Return the block that a local cluster prints when all its nodes answer."""
    rows = [("connect", url) for url in urls]
    rows.append(("data", f"{folder} (and each node's log)"))
    return _block(f"A Leveret cluster of {len(urls)} nodes is ready", rows, urls[:1])


def _block(title: str, rows: Sequence[tuple[str, str]], urls: Sequence[str]) -> str:
    width = max(len(key) for key, _ in rows)
    lines = [title, *(f"  {key:<{width}}  {text}" for key, text in rows)]
    if urls:
        lines += ["  from Python (pip install pika):"]
        lines += [f"      {line}" for line in pika_lines(urls[0])]
    lines += [
        "  User guest with password guest works only from this machine (loopback).",
        "  Stop with Ctrl-C or SIGTERM; a second one ends it at once.",
    ]
    return "\n".join(["", *lines, ""])
