"""What the machine lets us break, and a world of the run's own to break it in.

Faults of the network need hosts of their own. So the run is started again in network, mount and
process namespaces of its own, by root or as root of a user namespace: nothing outside is touched,
and nothing is left behind, however the run ends.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from chaos.delayed_wire import TUN, open_tap
from chaos.hosts import CommandFailed, run_command
from chaos.nemesis.kinds import KINDS, Need

OWN_WORLD: Final = "LEVERET_CHAOS_WORLD"
"""In the environment of a run that is in its own world: the folder to work in."""
LIFE: Final = "LEVERET_CHAOS_LIFE"
"""Likewise: the descriptor of a pipe that ends with the process outside."""
SPACES: Final = ("--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
FAKETIME: Final = "faketime/libfaketime.so.1"
LIBRARIES: Final = ("/usr/lib", "/usr/local/lib", "/usr/lib64")


def run_in_own_world(arguments: Sequence[str], work: Path) -> str:
    """Run this program in a world of its own, and exit with its code.

    It ends with this process, also if this one is killed: it hears that by a pipe.

    work: the folder for it, which belongs to this process.

    Returns:
        Why that cannot be, if it cannot.
    """
    into, reason = into_namespaces()
    if into:
        sys.exit(_ended([*into, sys.executable, "-m", "chaos", *arguments], work))
    return reason


def into_namespaces() -> tuple[list[str], str]:
    """Return what stands before a command that is to run in namespaces of its own.

    It ends, with all that it started, when the first process of it does. If that cannot be, the
    list is empty, and the text says why.
    """
    reason = "unshare is not installed"
    if shutil.which("unshare") is None:
        return [], reason
    for who in ((), ("--user", "--map-root-user")):
        command = ["unshare", *who, *SPACES]
        tried = subprocess.run(  # noqa: S603 - put together here
            [*command, "ip", "link", "set", "lo", "up"],
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
        if tried.returncode == 0:
            return command, ""
        reason = tried.stderr.strip().replace("\n", "; ")
    return [], f"no namespaces of our own: {reason}"


def _ended(command: Sequence[str], work: Path) -> int:
    """Run a command to its end in the world that it makes; return its exit code."""
    sys.stdout.flush()
    life, ours = os.pipe()
    try:
        world = subprocess.Popen(  # noqa: S603 - put together by the caller
            command,
            env={**os.environ, OWN_WORLD: str(work), LIFE: str(life)},
            pass_fds=[life],
        )
        try:
            return world.wait()
        finally:
            # It takes its whole world along. A signal for it to end would be lost on its way.
            world.kill()
            world.wait()
    finally:
        os.close(life)
        os.close(ours)


def settle_in() -> None:
    """Make the own world a place for hosts: what names them is not seen outside.

    Raises:
        CommandFailed: the system does not let us.
    """
    run_command("mount", "-t", "tmpfs", "tmpfs", "/run")
    run_command("ip", "link", "set", "lo", "up")
    threading.Thread(target=_end_with, args=[int(os.environ[LIFE])], daemon=True).start()


def _end_with(life: int) -> None:
    """End this world when the process outside that it is for has ended."""
    os.read(life, 1)
    os._exit(1)


def own_world() -> Path | None:
    """Return the folder to work in if this run is in a world of its own; else None."""
    work = os.environ.get(OWN_WORLD)
    return None if work is None else Path(work)


def possible(kinds: Iterable[str], *, why_no_hosts: str) -> tuple[list[str], dict[str, str]]:
    """Return the kinds of faults that can be injected here, and why the others cannot.

    why_no_hosts: if there is no world of our own.
    """
    reasons: dict[Need, str] = {}
    can: list[str] = []
    cannot: dict[str, str] = {}
    for kind in kinds:
        lacks = ""
        for need in KINDS[kind].needs:
            if need not in reasons:
                is_outside = why_no_hosts and need != "faketime"
                reasons[need] = why_no_hosts if is_outside else _TESTS[need]()
            lacks = lacks or reasons[need]
        if lacks:
            cannot[kind] = lacks
        else:
            can.append(kind)
    return can, cannot


def faketime() -> Path | None:
    """Return the library that makes a process see another time; None if it is not installed."""
    for folder in LIBRARIES:
        for path in (Path(folder) / FAKETIME, *Path(folder).glob(f"*/{FAKETIME}")):
            if path.is_file():
                return path
    return None


def _commands(*commands: tuple[str, ...]) -> Callable[[], str]:
    """Return a test that is passed if all the commands succeed."""

    def test() -> str:
        try:
            for command in commands:
                run_command(*command)
        except CommandFailed as failure:
            return str(failure)
        return ""

    return test


def _no_faketime() -> str:
    return "" if faketime() else "libfaketime is not installed (apt-get install libfaketime)"


def _no_ss() -> str:
    """Return why connections cannot be ended from outside; tries it with one of its own."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as ours,
    ):
        port = str(ours.getsockname()[1])
        try:
            printed = run_command("ss", "-K", "src", "127.0.0.1", "sport", "=", port)
        except CommandFailed as failure:
            return str(failure)
    return "" if port in printed else "ss -K: the kernel ends no connections on demand"


def _no_tap() -> str:
    try:
        os.close(open_tap("try"))
    except OSError as error:
        return f"no TAP device by {TUN}: {error.strerror}"
    return ""


def _no_fuse() -> str:
    if importlib.util.find_spec("pyfuse3") is None:
        return "pyfuse3 is not installed (apt-get install libfuse3-dev; pip install -e '.[chaos]')"
    return "" if os.access("/dev/fuse", os.R_OK | os.W_OK) else "/dev/fuse may not be used"


_TESTS: Final[dict[Need, Callable[[], str]]] = {
    "hosts": _commands(("ip", "-V"), ("setsid", "true")),
    "iptables": _commands(
        ("iptables", "-A", "INPUT", "-s", "192.0.2.1", "-j", "DROP"),
        ("iptables", "-F", "INPUT"),
    ),
    "tc": _commands(
        ("tc", "qdisc", "add", "dev", "lo", "root", "tbf", "rate", "1gbit", "burst", "1mb",
         "latency", "50ms"),
        ("tc", "qdisc", "del", "dev", "lo", "root"),
    ),
    "tun": _no_tap,
    "ss": _no_ss,
    "faketime": _no_faketime,
    # `settle_in` has mounted one.
    "tmpfs": lambda: "",
    "fuse": _no_fuse,
}  # fmt: skip
