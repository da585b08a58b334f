"""A cluster of real processes, to which anything may be done.

Each node is a session of its own on a host (`chaos/hosts.py`). Off loopback the nodes speak TLS
with each other. Whoever takes a node down says so, then its end is expected.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from chaos.hosts import Host, Loopback, Namespaces, run_command
from chaos.lossy_mount import LossyMount
from chaos.members import USER, Members, Node
from leveret.transport import CertificateAuthority, NodeId
from leveret.transport.security import new_token, write_private

NAME: Final = "chaos"
SETTINGS: Final = (
    f"node.cluster_name={NAME}",
    # Small, so that files go and snapshots are made and fetched within a run.
    "storage.segment_bytes=4MiB",
    "storage.reserve_bytes=8MiB",
    "consensus.snapshot_entries=2000",
    "amqp.heartbeat_s=10s",
)
DISK_BYTES: Final = 1 << 30


class Cluster(Members):
    """A cluster of Leveret's."""

    def __init__(
        self,
        folder: Path,
        hosts: Loopback | Namespaces,
        *,
        count: int,
        settings: Iterable[str] = (),
        tools: Callable[[int], list[str]] = lambda _: [],
        has_small_disks: bool = False,
        has_lossy_disks: bool = False,
        mistake: str = "",
    ) -> None:
        """Prepare `count` nodes below a folder, without starting them.

        tools: programs before the command line of a node, by its number.
        has_small_disks: each node has a file system of its own, in memory.
        has_lossy_disks: each has one that can forget what was not synced.
        mistake: the name of one of `chaos/simulation/mutations.py`, planted into all nodes.
        """
        super().__init__()
        self._folder = folder
        self._hosts = hosts
        self._tools = tools
        self._mistake = mistake
        self._has_lossy_disks = has_lossy_disks
        self._has_small_disks = has_small_disks
        self._settings = [part for setting in (*SETTINGS, *settings) for part in ("--set", setting)]
        self._token = new_token().hex().encode()
        self._authority = CertificateAuthority.create(NAME, now=datetime.now(UTC))
        self._made = count
        places = [hosts.new() for _ in range(count)]
        members = ",".join(
            f"{number}@{host.address}:{host.peer_port}" for number, host in enumerate(places, 1)
        )
        self.nodes = [
            self._node(
                number,
                host,
                ["--id", str(number), "--cluster", members, *self._certificates(number)],
            )
            for number, host in enumerate(places, 1)
        ]

    def _node(self, number: int, host: Host, arguments: Sequence[str]) -> Node:
        secrets = self._secrets(number)
        write_private(secrets / "token", self._token)
        definitions = secrets / "definitions.json"
        definitions.write_text(json.dumps(_DEFINITIONS))
        self._make_disk(number)
        return Node(
            number,
            host,
            self._folder,
            arguments=[
                *arguments,
                *("--token-file", str(secrets / "token")),
                *("--set", f"node.definitions={definitions}"),
                *self._settings,
            ],
            tools=self._tools(number),
            mistake=self._mistake,
        )

    def _make_disk(self, number: int) -> None:
        """Give a node the file systems that it is to have, one over the other."""
        data = self._folder / f"node-{number}"
        data.mkdir()
        if self._has_small_disks:
            run_command("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(data))
        if self._has_lossy_disks:
            below = self._folder / f"disk-{number}"
            below.mkdir()
            self.disks[number] = LossyMount(below, data)
            self.disks[number].mount()

    def _secrets(self, number: int) -> Path:
        folder = self._folder / f"secrets-{number}"
        folder.mkdir(exist_ok=True)
        return folder

    def _certificates(self, number: int) -> list[str]:
        """Return the flags of a founder's certificates, which nodes on loopback do not need."""
        if not self._hosts.is_separate:
            return []
        folder = self._secrets(number)
        self._authority.issue(NodeId(number), folder, now=datetime.now(UTC))
        # With its key beside it, each member can admit others.
        self._authority.save(folder)
        files = {"ca": "ca.pem", "certificate": "node.pem", "key": "node.key"}
        return [
            part
            for setting, name in files.items()
            for part in ("--set", f"peers.tls_{setting}={folder / name}")
        ]

    def newcomer(self, by: Node) -> Node:
        """Return a node, not yet started, that joins by a member."""
        self._made += 1
        host = self._hosts.new()
        node = self._node(
            self._made,
            host,
            [
                *("--join", f"{by.host.address}:{by.host.peer_port}"),
                *("--peer-listen", f"{host.address}:{host.peer_port}"),
            ],
        )
        node.is_founder = False
        return node

    def close(self) -> None:
        """End all processes, and take the disks away."""
        super().close()
        for disk in self.disks.values():
            disk.unmount()
        if self._has_small_disks:
            for number in range(1, self._made + 1):
                run_command("umount", str(self._folder / f"node-{number}"))

    async def why_not_well(self) -> str | None:
        """Return what a node lacks to be a full member that serves clients; None if none does."""
        numbers = sorted(node.number for node in self.nodes)
        for node in self.nodes:
            status = await node.status()
            if status is None:
                return f"{node} does not answer"
            if status.phase != "serving":
                return f"{node} is {status.phase}"
            if sorted([*status.linked, node.number]) != numbers:
                return f"{node} has links to {status.linked} alone"
            for group in status.groups:
                if group.leader is None:
                    return f"{node} knows no leader of group {group.group}"
                if group.voters != numbers or group.learners:
                    return (
                        f"{node} has voters {group.voters} and learners {group.learners} in"
                        f" group {group.group}"
                    )
            if not await node.answers():
                return f"{node} does not greet clients"
        return None


_DEFINITIONS: Final = {
    "users": [{"name": USER, "password": USER, "tags": "administrator"}],
    "permissions": [{"user": USER, "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}],
}
