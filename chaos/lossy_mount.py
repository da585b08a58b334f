"""The runner's hand on a disk that forgets: mounts it, cuts its power, makes it fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from chaos.hosts import CommandFailed

ROOT = Path(__file__).parents[1]


class LossyMount:
    """A file system of `chaos/lossy_disk.py`, in a process of its own.

    It ends by itself when this process ends.
    """

    def __init__(self, root: Path, mount: Path) -> None:
        """Take the folder that has the data, and the one where it is to be seen; both are there."""
        self._root = root
        self._mount = mount
        self._process: subprocess.Popen[str] | None = None

    def mount(self) -> None:
        """Mount it, if it is not.

        Raises:
            CommandFailed: the system does not let us.
        """
        if self._process is not None:
            return
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", "chaos.lossy_disk", str(self._root), str(self._mount)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "mounted\n":
            self._process = None
            raise CommandFailed("the lossy disk was not mounted; see above")

    def tell(self, command: str) -> str:
        """Give a command, and return its answer; "" if it is not mounted."""
        if self._process is None:
            return ""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def cut_power(self, seed: int) -> None:
        """Have it lose what was not synced, and be gone until it is mounted again."""
        self.tell(f"cut {seed}")
        self._end()

    def unmount(self) -> None:
        """Take it away; nothing is lost."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._end()

    def _end(self) -> None:
        if self._process is not None:
            self._process.wait(20)
            self._process = None
