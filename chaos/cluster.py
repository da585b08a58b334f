"""A cluster of real processes, to which anything may be done.

Each node is a session of its own on a host (`chaos/hosts.py`). Off loopback the nodes speak TLS
with each other. Whoever takes a node down says so, then its end is expected.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import trio

from chaos.hosts import Host, Loopback, Namespaces, run_command
from chaos.lossy_mount import LossyMount
from leveret.cli.ask import ask_node
from leveret.cli.exits import Failure
from leveret.node.control.replies import NodeStatus
from leveret.transport import CertificateAuthority, NodeId
from leveret.transport.security import new_token, write_private
from tests.support.nodes import LeveretProcess, NodeFailed

ROOT: Final = Path(__file__).parents[1]
NAME: Final = "chaos"
USER: Final = "chaos"
SETTINGS: Final = (
    f"node.cluster_name={NAME}",
    # Small, so that files go and snapshots are made and fetched within a run.
    "storage.segment_bytes=4MiB",
    "consensus.snapshot_entries=2000",
    "amqp.heartbeat_s=10s",
)
DISK_BYTES: Final = 1 << 30
LOOK_EVERY_S: Final = 0.1
ASK_WITHIN_S: Final = 2.0


class Node(LeveretProcess):
    """One node of the cluster."""

    def __init__(
        self,
        number: int,
        host: Host,
        folder: Path,
        *,
        arguments: Sequence[str],
        tools: Sequence[str],
        mistake: str,
    ) -> None:
        name = f"node-{number}"
        data = folder / name
        super().__init__(
            [
                *("node", "--data-dir", str(data), "--log-level", "info"),
                *("--listen", f"{host.address}:{host.amqp_port}"),
                *arguments,
            ],
            [host.amqp_port],
            folder / f"{name}.log",
            data=data,
        )
        if mistake:
            program = [sys.executable, "-m", "chaos.mistaken", mistake]
            self.arguments = ["env", f"PYTHONPATH={ROOT}", *program, *self.arguments[3:]]
        # Each of these programs becomes the next one, so that the process is the node.
        self.arguments = ["setsid", *host.prefix, *tools, *self.arguments]
        self.number = number
        self.host = host
        self.folder = data
        self.is_expected_up = False
        self.is_founder = True
        """Whether it comes back by its command line alone after its data is lost."""

    def __str__(self) -> str:
        return f"node {self.number}"

    @property
    def url(self) -> str:
        """Where clients reach it, with a heartbeat that notices a silent node soon."""
        host = self.host
        return f"amqp://{USER}:{USER}@{host.address}:{host.amqp_port}/?heartbeat=5"

    def launch(self) -> None:
        super().launch()
        self.is_expected_up = True

    def kill(self) -> None:
        self.is_expected_up = False
        super().kill()

    def stop(self) -> int:
        self.is_expected_up = False
        return super().stop()

    def empty(self) -> None:
        """Take away all its data; it must not run."""
        for entry in self.folder.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    async def status(self) -> NodeStatus | None:
        """Return how the node sees itself; None if it does not answer."""
        with trio.move_on_after(ASK_WITHIN_S):
            try:
                return await ask_node(self.folder, "status", NodeStatus)
            except Failure:
                pass
        return None

    async def answers(self) -> bool:
        """Return whether it greets a client."""
        with trio.move_on_after(ASK_WITHIN_S):
            try:
                async with await trio.open_tcp_stream(
                    self.host.address, self.host.amqp_port
                ) as stream:
                    await stream.send_all(b"AMQP\x00\x00\x09\x01")
                    return await stream.receive_some(1) == b"\x01"
            except (OSError, trio.BrokenResourceError):
                pass
        return False


class Cluster:
    """The nodes by their places, from 0; a place keeps its number unless its node is replaced."""

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
        self._folder = folder
        self._hosts = hosts
        self._tools = tools
        self._mistake = mistake
        self._has_lossy_disks = has_lossy_disks
        self.disks: dict[int, LossyMount] = {}
        """Those that can forget, by the numbers of their nodes."""
        self._has_small_disks = has_small_disks
        self._settings = [part for setting in (*SETTINGS, *settings) for part in ("--set", setting)]
        self._token = new_token().hex().encode()
        self._authority = CertificateAuthority.create(NAME, now=datetime.now(UTC))
        self._made = count
        self.failures: list[str] = []
        """What went wrong with the processes, in words."""
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

    @property
    def urls(self) -> list[str]:
        """Where clients reach the nodes, by their places."""
        return [node.url for node in self.nodes]

    def number_at(self, address: str | None) -> int:
        """Return which node a client's address means; 0 if it is none of them."""
        for node in self.nodes:
            if address is not None and address.endswith(
                f"{node.host.address}:{node.host.amqp_port}"
            ):
                return node.number
        return 0

    def launch(self, nodes: Iterable[Node] | None = None) -> None:
        """Start those of the nodes that do not run; all by default."""
        for node in self.nodes if nodes is None else nodes:
            if not node.is_running:
                node.kill()
                node.launch()

    def close(self) -> None:
        """End all processes, and take the disks away."""
        self.kill_all()
        for disk in self.disks.values():
            disk.unmount()
        if self._has_small_disks:
            for number in range(1, self._made + 1):
                run_command("umount", str(self._folder / f"node-{number}"))

    def kill_all(self) -> None:
        """End all processes by SIGKILL."""
        for node in self.nodes:
            node.kill()

    async def stop(self, node: Node) -> None:
        """End a node by SIGTERM, and note how it failed at that."""
        try:
            code = await trio.to_thread.run_sync(node.stop)
        except NodeFailed as error:
            self.failures.append(f"{node} did not end on SIGTERM: {str(error)[:200]}")
        else:
            if code:
                self.failures.append(f"{node} ended on SIGTERM with code {code}")

    async def watch(self) -> None:
        """Note nodes that end without having been told to, and start them again."""
        while True:
            for node in self.nodes:
                if node.is_expected_up and not node.is_running:
                    code = node.wait_ended()
                    self.failures.append(f"{node} ended by itself with code {code}; see its log")
                    node.launch()
            await trio.sleep(LOOK_EVERY_S)

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

    async def wait_well(
        self, *, within_s: float, waits: dict[str, float] | None = None
    ) -> str | None:
        """Wait until all nodes are full members that serve clients; return what is still amiss.

        waits: gets the seconds for which each thing was amiss.
        """
        since = trio.current_time()
        deadline = since + within_s
        while (amiss := await self.why_not_well()) is not None:
            if trio.current_time() > deadline:
                return amiss
            await trio.sleep(LOOK_EVERY_S)
            now = trio.current_time()
            if waits is not None:
                waits[amiss] = waits.get(amiss, 0.0) + now - since
            since = now
        return None


_DEFINITIONS: Final = {
    "users": [{"name": USER, "password": USER, "tags": "administrator"}],
    "permissions": [{"user": USER, "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}],
}
