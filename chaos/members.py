"""The nodes of a cluster as processes, whatever broker they are, and what is done to them all."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import trio

from chaos.hosts import Host
from chaos.lossy_mount import LossyMount
from leveret.cli.ask import ask_node
from leveret.cli.exits import Failure
from leveret.node.control.replies import NodeStatus
from tests.support.nodes import LeveretProcess, NodeFailed

ROOT: Final = Path(__file__).parents[1]
USER: Final = "chaos"
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


class Members:
    """The nodes by their places, from 0; a place keeps its number unless its node is replaced."""

    is_leveret = True
    """Whether its nodes can be asked for more than any broker tells its clients."""
    queue_arguments: Mapping[str, str] = {}
    """With which every queue is declared."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.failures: list[str] = []
        """What went wrong with the processes, in words."""
        self.disks: dict[int, LossyMount] = {}
        """Those that can forget, by the numbers of their nodes."""

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
        """End all processes, and take away what they needed."""
        self.kill_all()

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
        raise NotImplementedError

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
