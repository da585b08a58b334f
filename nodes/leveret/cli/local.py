"""A cluster of node processes on this machine: its folder, its processes, their states."""
# ruff: noqa: ASYNC110, S603 - processes are polled, nothing would set an event; commands are ours

from __future__ import annotations

import contextlib
import enum
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trio

from leveret.cli.exits import KINDS, BadConfiguration, Failure, InternalFailure
from leveret.cli.welcome import url_of
from leveret.transport.identity import Address
from leveret.transport.security import new_token, write_private

HOST = "127.0.0.1"
CLUSTER_FILE = "cluster.toml"
TOKEN_FILE = "token"  # noqa: S105 - a file's name
PEER_PORT_OFFSET = 20_000
NODE_PROGRAM = (sys.executable, "-m", "leveret.cli.main", "node")
START_WITHIN_S = 60.0
STOP_WITHIN_S = 9.5
"""A node ends itself within 9 seconds; after this it is killed."""
RESTART_AFTER_S = 1.0
_POLL_S = 0.1
_PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
_TAIL_BYTES = 3000


class State(enum.Enum):
    """What a node process is doing, as the table shows it."""

    STARTING = "starting"
    UP = "up"
    DOWN = "down"


@dataclass
class LocalNode:
    """One node of the cluster, running or not."""

    id: int
    address: Address
    """Where it takes clients."""
    log: Path
    process: subprocess.Popen[bytes] | None = None
    state: State = State.DOWN
    ending: str = ""
    """How the last process ended, in words."""
    starts: int = 0
    down_since: float = field(default=0.0, repr=False)

    @property
    def name(self) -> str:
        return f"node-{self.id}"

    @property
    def url(self) -> str:
        return url_of(self.address)

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None else None

    def log_tail(self) -> str:
        """Return the end of the node's log, indented."""
        try:
            text = self.log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace")
        except OSError:
            return ""
        return "\n".join(f"    {line}" for line in text.splitlines()[-15:])


def prepare_folder(folder: Path, *, nodes: int, base_port: int, is_fresh: bool) -> None:
    """Write what the nodes of a local cluster share: `cluster.toml` and, once, the token.

    The caller holds the folder.

    Raises:
        BadConfiguration: the folder has a cluster of another size, or is not ours.
    """
    path = folder / CLUSTER_FILE
    if is_fresh and path.exists():
        _clear(folder)
    if path.exists():
        found = len(set(re.findall(r'"(\d+)@', path.read_text(errors="replace"))))
        if found != nodes:
            raise BadConfiguration(
                f"{folder} holds the data of a cluster of {found} nodes; use --nodes {found},"
                " another --data-dir, or --fresh, which deletes that data"
            )
    elif any(folder.glob("node-*")):
        raise BadConfiguration(
            f"{folder} holds nodes, but no {CLUSTER_FILE} of `leveret cluster`; choose another"
            " --data-dir"
        )
    if not (folder / TOKEN_FILE).exists():
        write_private(folder / TOKEN_FILE, new_token().hex().encode() + b"\n")
    members = json.dumps([f"{i}@{HOST}:{_peer_port(base_port, i, nodes)}" for i in _ids(nodes)])
    text = (
        "# Made by `leveret cluster` at each start. To change a setting of all its nodes, set an\n"
        "# environment variable, such as LEVERET_LOGGING_LEVEL=debug.\n"
        f'[node]\ncluster = {members}\ntoken_file = "{TOKEN_FILE}"\n'
    )
    write_private(path, text.encode())


def _ids(nodes: int) -> range:
    return range(1, nodes + 1)


def _peer_port(base_port: int, number: int, nodes: int) -> int:
    """Return the port for other nodes: 20,000 above that for clients, or below at the end."""
    above = base_port + PEER_PORT_OFFSET + nodes <= 65536
    return base_port + (PEER_PORT_OFFSET if above else -PEER_PORT_OFFSET) + number - 1


def _clear(folder: Path) -> None:
    """Delete the files of an earlier local cluster, and nothing else."""
    for path in folder.glob("node-*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    for name in (CLUSTER_FILE, TOKEN_FILE):
        (folder / name).unlink(missing_ok=True)


class LocalCluster:
    """The node processes of one folder. `watch` must run while they do."""

    def __init__(
        self,
        folder: Path,
        *,
        nodes: int,
        base_port: int,
        restarts: bool,
        note: Callable[[str], None],
        program: Sequence[str] = NODE_PROGRAM,
    ) -> None:
        """Take what to run; nothing is started yet.

        restarts: start a node again by itself, a second after it ended.
        note: called with a line for people whenever something happened.
        program: the command line of a node, before its flags.
        """
        self.folder = folder
        self.nodes = [
            LocalNode(i, Address(HOST, base_port + i - 1), folder / f"node-{i}.log")
            for i in _ids(nodes)
        ]
        self._restarts = restarts
        self._note = note
        self._program = list(program)
        self._is_stopping = False

    @property
    def urls(self) -> list[str]:
        return [node.url for node in self.nodes]

    def start(self, node: LocalNode) -> None:
        """Start the process of a node that is down."""
        assert node.process is None
        command = [
            *self._program,
            *("--config", str(self.folder / CLUSTER_FILE)),
            *("--id", str(node.id), "--name", node.name),
            *("--data-dir", str(self.folder / node.name), "--listen", str(node.address)),
            *("--parent", str(os.getpid())),
        ]
        with node.log.open("ab") as log:
            # Not by trio, which forks in a thread: the child would be told of that thread's end.
            # A process group of its own, so that Ctrl-C comes to us and we stop it in order.
            node.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        node.state, node.ending = State.STARTING, ""
        node.starts += 1
        self._note(f"{node.name} starting (process {node.pid})")

    def kill(self, node: LocalNode) -> None:
        """End a node's process by SIGKILL; `watch` sees it end."""
        if node.process is not None:
            self._note(f"kill -9 {node.pid} ({node.name})")
            node.process.kill()

    def down(self) -> list[LocalNode]:
        """Return the nodes that are down."""
        return [node for node in self.nodes if node.state is State.DOWN]

    async def watch(self) -> None:
        """Follow the processes for ever: see them end, see them answer, restart if asked."""
        while True:
            for node in self.nodes:
                self._see_end(node)
                if node.state is State.STARTING and await _answers(node.address):
                    node.state = State.UP
                    self._note(f"{node.name} up on {node.address} (process {node.pid})")
            if self._restarts:
                for node in self.down():
                    if trio.current_time() - node.down_since >= RESTART_AFTER_S:
                        self.start(node)
            await trio.sleep(_POLL_S)

    def _see_end(self, node: LocalNode) -> None:
        if node.process is None or node.process.poll() is None:
            return
        code = node.process.returncode
        was_starting = node.state is State.STARTING
        node.ending = f"killed by {signal.Signals(-code).name}" if code < 0 else f"code {code}"
        node.process, node.state, node.down_since = None, State.DOWN, trio.current_time()
        if self._is_stopping:
            return
        where = "" if code < 0 else f", see {node.log}"
        self._note(f"{node.name} down ({node.ending}{where})")
        if was_starting and code >= 0:
            raise _start_failure(node, code)

    async def until_up(self, nodes: Sequence[LocalNode]) -> None:
        """Wait until the nodes answer clients.

        Raises:
            Failure: one did not within a minute.
        """
        with trio.move_on_after(START_WITHIN_S):
            while any(node.state is not State.UP for node in nodes):
                await trio.sleep(_POLL_S)
            return
        silent = next(node for node in nodes if node.state is not State.UP)
        raise InternalFailure(
            f"{silent.name} does not answer after {START_WITHIN_S:g} s; the end of {silent.log}:\n"
            f"{silent.log_tail()}"
        )

    async def stop(self) -> None:
        """Stop all nodes by SIGTERM, and kill those that take too long; a checkpoint."""
        self._is_stopping = True
        for node in self.nodes:
            if node.process is not None:
                node.process.terminate()
        with trio.move_on_after(STOP_WITHIN_S):
            while any(node.process is not None for node in self.nodes):
                for node in self.nodes:
                    self._see_end(node)
                await trio.sleep(_POLL_S / 2)
        for node in self.nodes:
            if node.process is not None:
                self._note(f"{node.name} did not stop within {STOP_WITHIN_S:g} s: killed")
                node.process.kill()
                node.process.wait()


def _start_failure(node: LocalNode, code: int) -> Failure:
    kind = KINDS.get(code, InternalFailure)
    return kind(f"{node.name} ended with code {code}; the end of {node.log}:\n{node.log_tail()}")


async def _answers(address: Address) -> bool:
    """Say whether a node answers a protocol header with the first octet of a frame."""
    with trio.move_on_after(1), contextlib.suppress(OSError):
        probe = trio.socket.socket(socket.AF_INET)
        with probe:
            await probe.connect(tuple(address))
            await probe.send(_PROTOCOL_HEADER)
            return await probe.recv(1) == b"\x01"
    return False


def pick(nodes: Sequence[LocalNode]) -> LocalNode | None:
    """Return one of the nodes that are up, by chance; None if none is."""
    up = [node for node in nodes if node.state is State.UP]
    return secrets.choice(up) if up else None
