"""Where nodes live: on loopback, or on hosts of their own in network namespaces.

The namespaces are anonymous: the whole run is started in a network, mount and process namespace
of its own (`chaos/capabilities.py`), so all of it ends with the run, whatever becomes of that.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import Final

from tests.support.nodes import free_port, free_ports

BRIDGE: Final = "chaos"
BRIDGE_MAC: Final = "02:00:0a:4d:00:fe"
"""Of our own: a bridge without one takes another one when ports come and go, and nobody on it
finds the clients any more until his tables are old."""
NETWORK: Final = "10.77.0"
CLIENTS: Final = f"{NETWORK}.254"
"""The address of the runner and its clients."""
AMQP_PORT: Final = 5672
PEER_PORT: Final = 25672


class CommandFailed(Exception):
    """A program of the system refused; the text is its own."""


def run_command(*command: str) -> str:
    """Run a program of the system and return what it printed.

    Raises:
        CommandFailed: it is not there, or it failed.
    """
    try:
        done = subprocess.run(  # noqa: S603 - the programs of this package's own faults
            command, capture_output=True, text=True, check=False, timeout=20
        )
    except FileNotFoundError:
        raise CommandFailed(f"{command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise CommandFailed(f"{' '.join(command)}: no end within 20 s") from None
    if done.returncode:
        raise CommandFailed(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


@dataclass(frozen=True)
class Host:
    """Where one node lives.

    namespace: its network namespace, if it has one of its own.
    """

    address: str
    amqp_port: int
    peer_port: int
    namespace: str | None = None

    @property
    def port(self) -> str:
        """The name of the device on the bridge by which it is joined, if it is separate."""
        return f"port-{self.namespace}"

    @property
    def prefix(self) -> list[str]:
        """What stands before a command that is to run there; it is replaced by the command."""
        return [] if self.namespace is None else ["ip", "netns", "exec", self.namespace]


class Loopback:
    """All nodes on 127.0.0.1, with ports of their own."""

    is_separate: Final = False

    def __init__(self, count: int) -> None:
        self._peers, self._ports = free_ports(count), free_ports(count)
        self._count = count
        self._made = 0

    def new(self) -> Host:
        """Return the place for one more node."""
        at = self._made
        self._made += 1
        if at < self._count:
            return Host("127.0.0.1", self._ports + at, self._peers + at)
        return Host("127.0.0.1", free_port(), free_port())


class Namespaces:
    """Each node on a host with its own network, all on one bridge, the clients too."""

    is_separate: Final = True

    def __init__(self) -> None:
        self._made = 0
        run_command("ip", "link", "add", BRIDGE, "address", BRIDGE_MAC, "type", "bridge")
        run_command("ip", "address", "add", f"{CLIENTS}/24", "dev", BRIDGE)
        run_command("ip", "link", "set", BRIDGE, "up")

    def new(self) -> Host:
        """Return one more host.

        Raises:
            CommandFailed: the system does not let us.
        """
        self._made += 1
        name = f"n{self._made}"
        host = Host(f"{NETWORK}.{self._made}", AMQP_PORT, PEER_PORT, name)
        run_command("ip", "netns", "add", name)
        run_command(
            *("ip", "link", "add", host.port, "type", "veth"),
            *("peer", "name", "eth0", "netns", name),
        )
        run_command("ip", "link", "set", host.port, "master", BRIDGE, "up")
        run_command("ip", "-n", name, "address", "add", f"{host.address}/24", "dev", "eth0")
        run_command("ip", "-n", name, "link", "set", "lo", "up")
        run_command("ip", "-n", name, "link", "set", "eth0", "up")
        return host
