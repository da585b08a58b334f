"""Which processes of this machine serve a port, and what they use; as /proc tells it.

Of processes of other users nothing is found, unless we are root; nor on systems without /proc.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

_PROC: Final = Path("/proc")
_LISTENS: Final = "0A"
"""The state of a listening socket in /proc/net/tcp."""
_SOCKET: Final = re.compile(r"socket:\[(\d+)\]")


class Usage(NamedTuple):
    """What processes have used since they are watched, and hold now."""

    cpu_s: float
    memory_bytes: int


class Processes:
    """The processes that listen on some addresses, over their restarts."""

    def __init__(self, addresses: Iterable[tuple[str, int]], *, proc: Path = _PROC) -> None:
        self._ports = {port for host, port in addresses if is_local(host)}
        self._proc = proc
        self._before_s: dict[int, float] = {}
        """What each had used when it was first seen."""
        self._cpu_s: dict[int, float] = {}
        for pid in self._find():
            self._before_s[pid] = self._cpu_s[pid] = self._cpu_of(pid) or 0.0

    @property
    def pids(self) -> list[int]:
        """All that were seen."""
        return sorted(self._cpu_s)

    def usage(self) -> Usage | None:
        """What they use; None if none was found."""
        memory_bytes = 0
        is_one_gone = False
        for pid in self._cpu_s:
            cpu_s = self._cpu_of(pid)
            if cpu_s is None:
                is_one_gone = True
                continue
            self._cpu_s[pid] = cpu_s
            memory_bytes += self._memory_of(pid)
        if is_one_gone:
            # Started again, maybe: all that the new one uses is from within the time watched.
            for pid in self._find():
                self._before_s.setdefault(pid, 0.0)
                self._cpu_s[pid] = self._cpu_of(pid) or 0.0
        if not self._cpu_s:
            return None
        used_s = sum(self._cpu_s[pid] - self._before_s[pid] for pid in self._cpu_s)
        return Usage(used_s, memory_bytes)

    def _find(self) -> list[int]:
        inodes = set(self._listening()) if self._ports else set()
        return [pid for pid in self._all() if inodes & set(self._sockets_of(pid))] if inodes else []

    def _listening(self) -> Iterator[str]:
        """The inodes of the sockets that listen on our ports."""
        for name in ("tcp", "tcp6"):
            try:
                rows = (self._proc / "net" / name).read_text().splitlines()[1:]
            except OSError:
                continue
            for row in rows:
                fields = row.split()
                port = int(fields[1].rpartition(":")[2], 16)
                if fields[3] == _LISTENS and port in self._ports:
                    yield fields[9]

    def _all(self) -> Iterator[int]:
        try:
            yield from (int(path.name) for path in self._proc.iterdir() if path.name.isdigit())
        except OSError:
            return

    def _sockets_of(self, pid: int) -> Iterator[str]:
        try:
            for path in (self._proc / str(pid) / "fd").iterdir():
                found = _SOCKET.match(str(path.readlink()))
                if found:
                    yield found[1]
        except OSError:
            return  # it is another user's, or has ended

    def _cpu_of(self, pid: int) -> float | None:
        """Seconds of a processor that a process has used; None if it has ended."""
        try:
            text = (self._proc / str(pid) / "stat").read_text()
        except OSError:
            return None
        # The name, in parentheses, may have anything in it.
        state, *fields = text.rpartition(")")[2].split()
        if state == "Z":
            return None
        return (int(fields[10]) + int(fields[11])) / os.sysconf("SC_CLK_TCK")

    def _memory_of(self, pid: int) -> int:
        try:
            pages = int((self._proc / str(pid) / "statm").read_text().split()[1])
        except OSError:
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE")


def is_local(host: str) -> bool:
    """Whether a host is this machine: one may listen on its address."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM)
    except OSError:
        return False
    for family, kind, protocol, _, address in found:
        with socket.socket(family, kind, protocol) as probe:
            try:
                probe.bind(address)
            except OSError:
                continue
            return True
    return False
