"""Runs the demonstration's producer and consumer, and keeps the ledger of what they tell."""
# ruff: noqa: ASYNC110, S603 - processes are polled, nothing would set an event; commands are ours

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import trio

from leveret.cli.exits import BadConfiguration, InternalFailure, PromiseBroken
from leveret.cli.ledger import Ledger

MISSING_AFTER_S = 10.0
"""A confirmed message that was not received for so long is shown as missing."""
PRODUCER_ENDS_WITHIN_S = 30.0
ARRIVES_WITHIN_S = 30.0
"""How long the last messages may take once the producer has ended."""
_POLL_S = 0.05
_PROGRAM = (sys.executable, "-m", "leveret.cli.demo")


class Traffic:
    """A producer process, a consumer process, and the judgement over them."""

    def __init__(
        self,
        urls: Sequence[str],
        log: Path,
        *,
        note: Callable[[str], None],
        program: Sequence[str] = _PROGRAM,
    ) -> None:
        """Take the nodes' URLs; `log` gets what the programs complain about.

        Raises:
            BadConfiguration: pika is not installed.
        """
        if importlib.util.find_spec("pika") is None:
            raise BadConfiguration(
                "the demonstration needs the client library pika: pip install pika"
            )
        self.ledger = Ledger()
        self.pause_s = 0.0
        """How long the producer has been waiting for a confirm."""
        self._urls = list(urls)
        self._log = log
        self._note = note
        self._program = list(program)
        self._run = secrets.token_hex(6)
        self._roles: dict[str, subprocess.Popen[bytes]] = {}
        self._ended: set[str] = set()

    async def run(self) -> None:
        """Start both programs and hear them until both have ended.

        Raises:
            InternalFailure: one ended by itself.
        """
        async with trio.open_nursery() as nursery:
            for role in ("consume", "produce"):
                nursery.start_soon(self._hear, role, self._start(role))

    def _start(self, role: str) -> subprocess.Popen[bytes]:
        command = [*self._program, role, self._run, str(os.getpid()), *self._urls]
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                process_group=0,
            )
        self._roles[role] = process
        return process

    async def _hear(self, role: str, process: subprocess.Popen[bytes]) -> None:
        async for line in _lines(process):
            self._take(json.loads(line))
        while process.poll() is None:
            await trio.sleep(_POLL_S)
        self._ended.add(role)
        if process.returncode != 0:
            raise InternalFailure(
                f"the demonstration's {role} program ended with code {process.returncode}; see"
                f" {self._log}"
            )

    def _take(self, facts: dict[str, object]) -> None:
        now = trio.current_time()
        ledger = self.ledger
        match facts:
            case {
                "published": int(published),
                "confirmed": list(confirmed),
                "pause_s": float(pause_s),
                "longest_pause_s": float(longest_pause_s),
            }:
                ledger.publish(published)
                ledger.confirm(confirmed, now)
                ledger.longest_pause_s = longest_pause_s
                self.pause_s = pause_s
            case {"received": list(received)}:
                for number, attempt, redelivered in received:
                    if number == -1:
                        ledger.foreign += 1
                    elif number < 0:
                        ledger.unreadable += 1
                    else:
                        ledger.receive(number, attempt, redelivered=redelivered)
            case _:
                raise AssertionError(facts)

    async def finish(self) -> None:
        """End the producer, wait for the last messages, end the consumer, and judge.

        Raises:
            PromiseBroken: a confirmed message is missing, or one came that nobody sent.
        """
        await self._end("produce", within_s=PRODUCER_ENDS_WITHIN_S)
        with trio.move_on_after(ARRIVES_WITHIN_S):
            while self.ledger.waiting:
                await trio.sleep(_POLL_S)
        await self._end("consume", within_s=PRODUCER_ENDS_WITHIN_S)
        self._note(f"totals: {self.counts()}")
        lost = self.ledger.missing(trio.current_time(), after_s=0)
        if lost or self.ledger.invented:
            raise PromiseBroken(
                f"{len(lost)} confirmed messages did not come within {ARRIVES_WITHIN_S:g} s: they"
                f" are lost, or stuck in the queue 'demo' (the first is number"
                f" {lost[0] if lost else 'none'}); {self.ledger.invented} came that nobody sent"
            )

    async def _end(self, role: str, *, within_s: float) -> None:
        self._roles[role].terminate()
        with trio.move_on_after(within_s):
            while role not in self._ended:
                await trio.sleep(_POLL_S)
            return
        raise PromiseBroken(
            f"the {role} program did not come to an end within {within_s:g} s: not all that was"
            f" published is confirmed; {self.counts()}"
        )

    def close(self) -> None:
        """End both programs at once, if they run."""
        for process in self._roles.values():
            if process.poll() is None:
                process.kill()
                process.wait()

    def counts(self) -> str:
        """Return the running counts in one line."""
        ledger = self.ledger
        missing = ledger.missing(trio.current_time(), after_s=MISSING_AFTER_S)
        parts = [
            f"published {ledger.published:,}",
            f"confirmed {ledger.confirmed:,}",
            f"received {ledger.received:,}",
            f"on their way {ledger.waiting:,}",
            f"missing {len(missing):,}",
            f"duplicates redelivered {ledger.redelivered:,}",
            f"sent again {ledger.sent_again:,}",
            f"unmarked {ledger.unmarked:,}",
            f"longest pause of confirms {ledger.longest_pause_s:.2f} s",
        ]
        if ledger.foreign:
            parts.append(f"left by an earlier demonstration {ledger.foreign:,}")
        return "; ".join(parts)


async def _lines(process: subprocess.Popen[bytes]) -> AsyncIterator[bytes]:
    """Yield the whole lines that a process prints, until it closes its output."""
    assert process.stdout is not None
    buffer = b""
    async with trio.lowlevel.FdStream(os.dup(process.stdout.fileno())) as stream:
        process.stdout.close()
        async for chunk in stream:
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                yield line
