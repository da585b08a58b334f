"""Real brokers for the client's tests, each started as its user would."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Protocol

from tests.support import nodes
from tests.support.nodes import LeveretProcess, NodeFailed, answers_amqp, free_port

RABBITMQ_START_WITHIN_S = 60.0


class Target(Protocol):
    """A broker, or a cluster of them, behind one URL."""

    kind: str

    @property
    def url(self) -> str:
        """Where it is; several hosts for a cluster."""

    def start(self) -> None:
        """Have it serve."""

    def stop(self) -> None:
        """End it."""

    def heal(self) -> None:
        """Have all of it serve again, whatever a test did."""


class Nodes:
    """One Leveret node, or the members of a cluster."""

    def __init__(self, kind: str, members: list[LeveretProcess]) -> None:
        self.kind = kind
        self.members = members

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{member.ports[0]}" for member in self.members)
        return f"amqp://guest:guest@{hosts}/"

    def start(self) -> None:
        self.heal()

    def heal(self) -> None:
        for member in self.members:
            if not member.is_running:
                member.kill()
                member.launch()
        for member in self.members:
            member.wait_ready()

    def stop(self) -> None:
        for member in self.members:
            member.kill()

    def at(self, address: str | None) -> LeveretProcess:
        """The member behind an address that a client is connected to."""
        return next(m for m in self.members if address == f"127.0.0.1:{m.ports[0]}")


class RabbitMq:
    """Debian's RabbitMQ in a folder of its own, with an Erlang node name of its own."""

    kind = "rabbitmq"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._mapper_port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self._port}/"

    def start(self) -> None:
        folder = self._folder
        (folder / "enabled_plugins").write_text("[].\n")
        environment = {
            **os.environ,
            "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/lib/rabbitmq/bin",
            "HOME": str(folder),
            "RABBITMQ_NODENAME": f"leveret-test-{self._port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
            "ERL_EPMD_PORT": str(self._mapper_port),
        }
        # Debian's wrapper insists on its own user; the program behind it does not.
        program = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
        command = str(program) if program.exists() else shutil.which("rabbitmq-server") or ""
        with (folder / "output").open("wb") as output:
            self._process = subprocess.Popen(
                [command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + RABBITMQ_START_WITHIN_S
        while not answers_amqp(self._port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                text = (folder / "output").read_text(errors="replace")
                raise NodeFailed(f"RabbitMQ did not start\n{text[-4000:]}")
            time.sleep(0.1)

    def heal(self) -> None:
        assert self._process is not None
        assert self._process.poll() is None

    def stop(self) -> None:
        if self._process is not None:
            # The whole session: the wrapper and the Erlang machine.
            os.killpg(self._process.pid, 9)
            self._process.wait()
            self._process = None
            # The port mapper made itself a daemon.
            kill = ["/usr/bin/epmd", "-kill"]
            environment = {**os.environ, "ERL_EPMD_PORT": str(self._mapper_port)}
            deadline = time.monotonic() + 10
            while subprocess.run(
                kill, env=environment, capture_output=True, check=False
            ).returncode:
                # It refuses while it believes that a node lives.
                if time.monotonic() > deadline:
                    raise NodeFailed("the port mapper of RabbitMQ did not end")
                time.sleep(0.1)


def is_rabbitmq_installed() -> bool:
    """Whether there is a RabbitMQ to start."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/lib/rabbitmq/bin"
    return shutil.which("rabbitmq-server", path=path) is not None


def node_target(folder: Path) -> Target:
    """One Leveret node."""
    return Nodes("node", [nodes.node(folder)])


def cluster_target(folder: Path) -> Target:
    """Three Leveret nodes."""
    return Nodes("cluster", nodes.members(folder))


def rabbitmq_target(folder: Path) -> Target:
    """A RabbitMQ server."""
    return RabbitMq(folder)
