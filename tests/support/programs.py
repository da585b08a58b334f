"""Runs a program as a user would and waits for what it prints, never for time to pass."""

from __future__ import annotations

import queue
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

LINE_WITHIN_S = 20.0
END_WITHIN_S = 15.0


class Program:
    """A running program; standard output and error are read as one stream of lines.

    As a context manager it kills the program that is still running at the end.
    """

    def __init__(
        self,
        arguments: Sequence[str | Path],
        *,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.lines: list[str] = []
        """Every line that was waited for or passed over, in order."""
        self._process = subprocess.Popen(
            [str(argument) for argument in arguments],
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
        )
        self._arrived: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._arrived.put(line.rstrip("\n"))
        self._arrived.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join(5)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def wait_for(self, text: str, *, within_s: float = LINE_WITHIN_S) -> str:
        """Return the next line that contains `text`.

        Raises:
            AssertionError: the program ended or the time was up; shows what it printed.
        """
        deadline = time.monotonic() + within_s
        while True:
            try:
                line = self._arrived.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {text!r} within {within_s} s: {self.lines}") from None
            if line is None:
                self._arrived.put(None)
                raise AssertionError(f"ended before {text!r}: {self.lines}")
            self.lines.append(line)
            if text in line:
                return line

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def end(self, *, within_s: float = END_WITHIN_S) -> int:
        """Wait for the program to end by itself; return its exit code."""
        try:
            code = self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {within_s} s: {self.lines}") from None
        while (line := self._arrived.get(timeout=5)) is not None:
            self.lines.append(line)
        self._arrived.put(None)
        return code

    def interrupt(self, number: signal.Signals, *, within_s: float = END_WITHIN_S) -> int:
        """Send the program a signal; return its exit code."""
        self._process.send_signal(number)
        return self.end(within_s=within_s)
