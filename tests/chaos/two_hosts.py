"""A program for `test_detour.py`: hosts, of which one is led through a delayed wire.

`python -m tests.chaos.two_hosts WHAT` runs in namespaces of its own, and prints what it saw as
JSON.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Final

from chaos.capabilities import possible
from chaos.delayed_wire import Holding
from chaos.detour import Detour
from chaos.hosts import CLIENTS, CommandFailed, Host, Namespaces, run_command

PORT: Final = 4000
WAIT_S: Final = 30.0
DELAY_S: Final = 0.15
JITTER_S: Final = 0.05
NUMBERS: Final = 300
PART: Final = bytes(range(256)) * 1024
PARTS: Final = 2


def serve(address: str) -> None:
    """Give back what comes over one connection, and then send numbered datagrams to where it was
    from."""
    with socket.create_server((address, PORT)) as listener:
        print("listens", flush=True)
        connection, peer = listener.accept()
        with connection:
            while octets := connection.recv(1 << 16):
                connection.sendall(octets)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for number in range(NUMBERS):
            sender.sendto(number.to_bytes(4, "big"), (peer[0], PORT))


@contextmanager
def serving(host: Host) -> Iterator[subprocess.Popen[str]]:
    """Have `serve` run on a host."""
    with subprocess.Popen(
        [*host.prefix, sys.executable, "-m", "tests.chaos.two_hosts", "serve", host.address],
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        server.stdout.readline()
        try:
            yield server
        finally:
            server.kill()


class Echo:
    """A connection to a host that gives back what it gets."""

    def __init__(self, host: Host) -> None:
        self._socket = socket.create_connection((host.address, PORT), WAIT_S)

    def round_trip_s(self) -> float:
        """Return how long one octet takes there and back."""
        began = time.monotonic()
        self._socket.sendall(b"x")
        assert self._socket.recv(1) == b"x"
        return time.monotonic() - began

    def carries(self) -> bool:
        """Return whether much comes back as it was sent."""
        for _ in range(PARTS):
            self._socket.sendall(PART)
            back = b""
            while len(back) < len(PART):
                back += self._socket.recv(1 << 16)
            if back != PART:
                return False
        return True

    def close(self) -> None:
        self._socket.close()


def delayed(one: Host, other: Host) -> dict[str, object]:
    """Hold what `one` sends and gets for a time, on a connection that lives on."""
    with serving(one), serving(other):
        echo, beside = Echo(one), Echo(other)
        before = links()
        echo.round_trip_s()
        detour = Detour([one], seed=1)
        detour.begin(Holding(DELAY_S, JITTER_S))
        late = [echo.round_trip_s() for _ in range(3)]
        beside.round_trip_s()
        whole = echo.carries()
        counts = asdict(detour.counts())
        detour.end()
        after = links()
        echo.round_trip_s()
        return {
            "late_s": late,
            "whole": whole,
            "whole_after": echo.carries(),
            "counts": counts,
            "as_before": before == after,
        }


def reordered(one: Host, _: Host) -> dict[str, object]:
    """Have some of many datagrams, and of a connection's segments, be overtaken."""
    with serving(one), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind((CLIENTS, PORT))
        receiver.settimeout(WAIT_S)
        echo = Echo(one)
        detour = Detour([one], seed=1)
        detour.begin(Holding(share=0.3, late_s=0.02))
        whole = echo.carries()
        echo.close()
        numbers = [int.from_bytes(receiver.recv(4), "big") for _ in range(NUMBERS)]
        counts = asdict(detour.counts())
        detour.end()
        return {"whole": whole, "numbers": numbers, "counts": counts}


def twice(one: Host, other: Host) -> dict[str, object]:
    """Try to put a host behind a second wire."""
    before = links()
    first = Detour([one], seed=1)
    first.begin(Holding(0.01))
    between = links()
    refused = ""
    try:
        Detour([other, one], seed=1).begin(Holding(0.01))
    except CommandFailed as failure:
        refused = str(failure)
    is_undone = between == links()
    first.end()
    return {"refused": refused, "undone": is_undone, "as_before": before == links()}


def killed(one: Host, other: Host) -> dict[str, object]:
    """Have the wire's program end by itself while a host is behind it."""
    with serving(one):
        echo = Echo(one)
        before = links()
        detour = Detour([one, other], seed=1)
        detour.begin(Holding(0.01))
        [wire] = run_command("pgrep", "-P", str(os.getpid()), "-f", "delayed_wire").split()
        os.kill(int(wire), signal.SIGKILL)
        told = ""
        try:
            detour.end()
        except CommandFailed as failure:
            told = str(failure)
        return {"told": told, "as_before": before == links(), "whole": echo.carries()}


def orphaned(one: Host, _: Host) -> dict[str, object]:
    """Be killed while a host is behind a wire, and see what is left of that."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.two_hosts", "stay", json.dumps(asdict(one))],
        stdout=subprocess.PIPE,
        text=True,
    ) as runner:
        assert runner.stdout is not None
        runner.stdout.readline()
        between = [name for name, _ in links()]
        runner.kill()
    deadline = time.monotonic() + WAIT_S
    while (after := [name for name, _ in links()]) != [
        name for name in between if not name.startswith(("near-", "far-"))
    ]:
        assert time.monotonic() < deadline, after
        time.sleep(0.05)
    return {"gone": sorted(set(between) - set(after))}


def stay(one: Host, seed: int = 1) -> None:
    """Put a host behind a wire, say so, and stay until somebody ends this."""
    Detour([one], seed=seed).begin(Holding(0.01))
    print("stays", flush=True)
    signal.pause()


def links() -> list[tuple[str, str]]:
    """Return the devices here, each with the bridge that it is on."""
    found = json.loads(run_command("ip", "-json", "link", "show"))
    return sorted((link["ifname"], link.get("master", "")) for link in found)


DOINGS: Final[dict[str, Callable[[Host, Host], dict[str, object]]]] = {
    doing.__name__: doing for doing in (delayed, reordered, twice, killed, orphaned)
}


def main() -> None:
    """Run the program."""
    what, *arguments = sys.argv[1:]
    if what == "serve":
        serve(*arguments)
        return
    if what == "stay":
        stay(Host(**json.loads(arguments[0])))
        return
    run_command("mount", "-t", "tmpfs", "tmpfs", "/run")
    if what == "why-not":
        print(json.dumps(possible(["delay"], why_no_hosts="")[1].get("delay", "")))
        return
    hosts = Namespaces()
    if what == "stay-there":
        stay(hosts.new(), int(arguments[0]))
        return
    print(json.dumps(DOINGS[what](hosts.new(), hosts.new())))


if __name__ == "__main__":
    main()
