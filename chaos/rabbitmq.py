"""RabbitMQ in Leveret's place: three nodes with quorum queues, for a row beside ours.

On loopback, so that faults of processes are what can be done to it. It is judged by what its
clients see alone.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
from pathlib import Path
from typing import Final

from chaos.hosts import CommandFailed, Host, Loopback
from chaos.members import USER, Members, Node
from tests.support.nodes import NodeFailed, free_port

# Debian's wrapper insists on its own user; the program behind it does not.
PROGRAM: Final = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
KINDS: Final = ("kill", "kill-majority", "outage", "stop", "starve", "restart")
"""The faults that can be done to it."""
STOP_WITHIN_S: Final = 60.0


class RabbitNode(Node):
    """One node: a shell with the Erlang machine in it, which are signalled together."""

    def __init__(self, number: int, host: Host, folder: Path, environment: dict[str, str]) -> None:
        super().__init__(number, host, folder, arguments=[], tools=[], mistake="")
        settings = [f"{name}={value}" for name, value in environment.items()]
        self.arguments = ["setsid", "env", *settings, str(PROGRAM)]

    def kill(self) -> None:
        self.is_expected_up = False
        if self.is_running:
            os.killpg(self.pid, signal.SIGKILL)
        super().kill()

    def signal(self, number: signal.Signals) -> None:
        os.killpg(self.pid, number)

    def stop(self) -> int:
        """End it in order.

        Raises:
            NodeFailed: it did not end within `STOP_WITHIN_S`; it is killed then.
        """
        self.is_expected_up = False
        if not self.is_running:
            return 0
        assert self._process is not None
        self.signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise NodeFailed(f"{self} did not end on a signal") from None
        self.kill()
        # The shell has the code of a process that a signal ended.
        return 0


class RabbitCluster(Members):
    """Nodes that find each other by their configuration."""

    is_leveret = False
    queue_arguments = {"x-queue-type": "quorum"}  # noqa: RUF012 - nobody changes it

    def __init__(self, folder: Path, *, count: int) -> None:
        """Prepare `count` nodes below a folder, without starting them.

        Raises:
            CommandFailed: RabbitMQ is not installed.
        """
        super().__init__()
        if not PROGRAM.exists():
            raise CommandFailed("RabbitMQ is not installed (apt-get install rabbitmq-server)")
        self._mapper_port = free_port()
        cookie = folder / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)
        plugins = folder / "enabled_plugins"
        plugins.write_text("[].\n")
        hosts = Loopback(count)
        places = [hosts.new() for _ in range(count)]
        names = [f"chaos-{number}@localhost" for number in range(1, count + 1)]
        for number, host in enumerate(places, 1):
            data = folder / f"node-{number}"
            data.mkdir()
            config = data / "rabbitmq.conf"
            config.write_text(_configuration(host, names))
            environment = {
                "HOME": str(folder),
                "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:{PROGRAM.parent}",
                "RABBITMQ_NODENAME": names[number - 1],
                "RABBITMQ_NODE_IP_ADDRESS": host.address,
                "RABBITMQ_NODE_PORT": str(host.amqp_port),
                "RABBITMQ_DIST_PORT": str(host.peer_port),
                "RABBITMQ_MNESIA_BASE": str(data / "mnesia"),
                "RABBITMQ_LOG_BASE": str(data / "log"),
                "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
                "RABBITMQ_CONFIG_FILE": str(config.with_suffix("")),
                "RABBITMQ_CONF_ENV_FILE": str(data / "none"),
                "ERL_EPMD_PORT": str(self._mapper_port),
            }
            self.nodes.append(RabbitNode(number, host, folder, environment))

    def close(self) -> None:
        super().close()
        # The port mapper made itself a daemon. It refuses to end while it believes that a node
        # lives; then it ends with the next run's attempt, or not, and does no harm.
        subprocess.run(
            ["/usr/bin/epmd", "-kill"],
            env={**os.environ, "ERL_EPMD_PORT": str(self._mapper_port)},
            capture_output=True,
            check=False,
        )

    async def why_not_well(self) -> str | None:
        """Return what is missing for all nodes to greet clients; None if nothing is."""
        for node in self.nodes:
            if not await node.answers():
                return f"{node} does not greet clients"
        return None


def _configuration(host: Host, names: list[str]) -> str:
    discovery = "cluster_formation.classic_config.nodes"
    return "\n".join(
        [
            f"listeners.tcp.1 = {host.address}:{host.amqp_port}",
            f"default_user = {USER}",
            f"default_pass = {USER}",
            "heartbeat = 10",
            "cluster_partition_handling = pause_minority",
            "cluster_formation.peer_discovery_backend = classic_config",
            *(f"{discovery}.{number} = {name}" for number, name in enumerate(names, 1)),
            "",
        ]
    )
