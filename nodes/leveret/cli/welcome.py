"""What a person reads when a node or a cluster is up: where it is, and how to use it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from leveret.node.config import NodeConfig
from leveret.node.endpoints import Endpoints
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


def node_welcome(config: NodeConfig, endpoints: Endpoints, *, version: str, pid: int) -> str:
    """Return the block that a node prints when it is ready."""
    urls = [url_of(address) for address in endpoints.amqp]
    urls += [url_of(address, tls=True) for address in endpoints.amqp_tls]
    rows = [
        ("clients", ", ".join(map(str, [*endpoints.amqp, *endpoints.amqp_tls]))),
        ("data", str(config.node.data_dir)),
        ("connect", "  ".join(urls)),
    ]
    if endpoints.peers is not None:
        members = ", ".join(map(str, config.node.cluster))
        rows.insert(1, ("nodes", f"{endpoints.peers} (this is {config.node.id} of {members})"))
    title = f"Leveret {version}, node {config.node.name}, process {pid}, is ready"
    return _block(title, rows, urls[:1])


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
