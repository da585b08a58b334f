"""Starts, kills and restarts Leveret nodes as processes of their own, as a user runs them.

It is the one place that knows the command line of a node, and it knows nothing of pytest.
Nothing is assumed about when a process is ready: it is when it answers an AMQP handshake.
"""

from __future__ import annotations

import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

START_WITHIN_S = 30.0
"""How long a node may take from its start to its first AMQP answer, on a loaded machine."""
STOP_WITHIN_S = 10.0
"""How long a node may take to end after SIGTERM before it is killed and the test fails."""
_POLL_S = 0.02
_PORTS = range(10_000, 32_000)
"""Where free ports are looked for: below those that systems give to outgoing connections, of which
the nodes that are there already open many before the next one listens."""
_HEADER = b"AMQP\x00\x00\x09\x01"


class NodeFailed(Exception):
    """A node process ended or did not answer; the text ends with what it logged."""


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listened on a moment ago."""
    return free_ports(1)


def free_ports(count: int) -> int:
    """Return the first of `count` ports in a row that nobody listened on a moment ago."""
    for _ in range(100):
        base = secrets.choice(_PORTS)
        held: list[socket.socket] = []
        try:
            held.extend(socket.create_server(("127.0.0.1", base + i)) for i in range(count))
        except OSError:
            continue
        finally:
            for listener in held:
                listener.close()
        return base
    raise NodeFailed(f"no {count} free ports in a row")


def answers_amqp(port: int, *, host: str = "127.0.0.1") -> bool:
    """Say whether the port answers a protocol header with the first octets of a frame."""
    try:
        with socket.create_connection((host, port), timeout=2) as probe:
            probe.sendall(_HEADER)
            return probe.recv(1) == b"\x01"
    except OSError:
        return False


class LeveretProcess:
    """One `leveret` process and the AMQP ports that it is to open.

    Its output goes to `log`, which grows over restarts. data: the node's folder, if it is one.
    """

    def __init__(
        self, arguments: Sequence[str], ports: Sequence[int], log: Path, *, data: Path | None = None
    ) -> None:
        self.arguments = [sys.executable, "-m", "leveret.cli.main", *arguments]
        self.ports = list(ports)
        self.log = log
        self.data = data
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended, by itself or by us."""
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        """Start the process without waiting for it: a member alone cannot serve yet."""
        assert self._process is None
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )

    def start(self) -> None:
        """Start the process and wait until every port answers AMQP.

        Raises:
            NodeFailed: it ended by itself, or a port was silent for `START_WITHIN_S`.
        """
        self.launch()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until every port of the process that was launched answers AMQP.

        Raises:
            NodeFailed: it ended by itself, or a port was silent for `START_WITHIN_S`.
        """
        assert self._process is not None
        deadline = time.monotonic() + START_WITHIN_S
        for port in self.ports:
            while not answers_amqp(port):
                if self._process.poll() is not None:
                    code = self._process.returncode
                    self._process = None
                    raise NodeFailed(f"ended with code {code}\n{self._tail()}")
                if time.monotonic() > deadline:
                    self.kill()
                    raise NodeFailed(f"port {port} is silent\n{self._tail()}")
                time.sleep(_POLL_S)

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]

    def signal(self, number: signal.Signals) -> None:
        """Send the running process a signal, such as SIGSTOP."""
        assert self._process is not None
        self._process.send_signal(number)

    def rss_bytes(self) -> int:
        """Return the resident memory of the running process, in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    def log_text(self) -> str:
        """Return all that the process wrote, over its restarts."""
        return self.log.read_text(errors="replace")

    def kill(self) -> None:
        """End the process by SIGKILL; no-op when it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> int:
        """End the process by SIGTERM and return its exit code; 0 when it does not run.

        Raises:
            NodeFailed: it did not end within `STOP_WITHIN_S`; it is killed then.
        """
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGTERM)
        return self.wait_ended()

    def wait_ended(self) -> int:
        """Wait for the end of the process, which was signalled; return its exit code.

        Raises:
            NodeFailed: it did not end within `STOP_WITHIN_S`; it is killed then.
        """
        assert self._process is not None
        try:
            code = self._process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise NodeFailed(f"did not end on a signal\n{self._tail()}") from None
        self._process = None
        return code

    def restart(self) -> None:
        """Kill the process and start it again on the same data and ports."""
        self.kill()
        self.start()

    @property
    def urls(self) -> list[str]:
        return [f"amqp://guest:guest@127.0.0.1:{port}/" for port in self.ports]


def node(folder: Path, *, settings: Sequence[str] = (), data: Path | None = None) -> LeveretProcess:
    """Return a single node, not yet started, that keeps its data below `folder`.

    settings: as `--set` takes them, such as `amqp.heartbeat_s=5s`.
    data: the data folder, if it is to be elsewhere.
    """
    port = free_port()
    arguments = ["node", "--data-dir", str(data or folder / "data")]
    arguments += ["--listen", f"127.0.0.1:{port}", "--log-level", "warning"]
    return LeveretProcess([*arguments, *_sets(settings)], [port], folder / "node.log")


def members(folder: Path, *, count: int = 3, settings: Sequence[str] = ()) -> list[LeveretProcess]:
    """Return the nodes of a cluster as processes of their own, none started."""
    peers, ports = free_ports(count), free_ports(count)
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    cluster = ",".join(f"{i + 1}@127.0.0.1:{peers + i}" for i in range(count))
    shared = ["--cluster", cluster, "--token-file", str(token), "--log-level", "warning"]
    return [
        LeveretProcess(
            [
                *("node", "--id", str(i + 1), *shared, *_sets(settings)),
                *(
                    "--listen",
                    f"127.0.0.1:{ports + i}",
                    "--data-dir",
                    str(folder / f"node-{i + 1}"),
                ),
            ],
            [ports + i],
            folder / f"node-{i + 1}.log",
            data=folder / f"node-{i + 1}",
        )
        for i in range(count)
    ]


def _sets(settings: Sequence[str]) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def local_cluster(folder: Path, *, nodes: int = 3) -> LeveretProcess:
    """Return the process that runs a whole cluster of `nodes` nodes, not yet started."""
    base = free_ports(nodes)
    arguments = ["cluster", "--nodes", str(nodes), "--port", str(base)]
    ports = range(base, base + nodes)
    return LeveretProcess(
        [*arguments, "--data-dir", str(folder / "data")], ports, folder / "cluster.log"
    )
