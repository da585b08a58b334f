"""The runner's hand on delayed wires: puts hosts behind them while a fault is on, and back.

    before, and after:    host ═ port ═ BRIDGE
    meanwhile:            host ═ port ═ held bridge ═ near ═ wire ═ far ═ BRIDGE

Only the port changes its bridge: the host keeps its device and addresses, so that connections live
on, and those of other hosts go the plain way, at its speed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from chaos.delayed_wire import Counts, Holding
from chaos.hosts import BRIDGE, CommandFailed, Host, run_command

ROOT: Final = Path(__file__).parents[1]
END_S: Final = 20.0


class Detour:
    """Hosts behind a wire each, of one process of `chaos/delayed_wire.py`.

    That ends by itself when this process ends.
    """

    def __init__(self, hosts: Sequence[Host], *, seed: int) -> None:
        assert all(host.namespace is not None for host in hosts)
        self._hosts = list(hosts)
        self._seed = seed
        self._process: subprocess.Popen[str] | None = None
        self._bridges: list[str] = []
        self._away: list[Host] = []
        """Whose ports are on those bridges."""

    def begin(self, holding: Holding) -> None:
        """Have all that these hosts send and get be held.

        Raises:
            CommandFailed: the system does not let us, or one of them is behind a wire already;
                all is as before then.
        """
        names = [str(host.namespace) for host in self._hosts]
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", "chaos.delayed_wire", str(self._seed), *names],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            self._answer(f"hold {holding}")
            for name in names:
                bridge = f"held-{name}"
                run_command("ip", "link", "add", bridge, "type", "bridge")
                self._bridges.append(bridge)
                run_command("ip", "link", "set", bridge, "up")
                run_command("ip", "link", "set", f"near-{name}", "master", bridge, "up")
                run_command("ip", "link", "set", f"far-{name}", "master", BRIDGE, "up")
            for host, bridge in zip(self._hosts, self._bridges, strict=True):
                run_command("ip", "link", "set", host.port, "master", bridge)
                self._away.append(host)
        except CommandFailed:
            self._undo()
            raise

    def counts(self) -> Counts:
        """Return what has become of the frames so far, both ways of all hosts together.

        Raises:
            CommandFailed: the program has ended by itself.
        """
        return Counts(**json.loads(self._answer("counts")))

    def end(self) -> None:
        """Let go what is held, and have the hosts go the plain way again.

        Raises:
            CommandFailed: the program had ended by itself; the hosts are back then, too.
        """
        try:
            self._answer("flow")
        finally:
            self._undo()

    def _undo(self) -> None:
        """Put the ports back, then take away what stood between."""
        while self._away:
            run_command("ip", "link", "set", self._away.pop().port, "master", BRIDGE)
        if self._process is not None:
            # Its devices go at once: what BRIDGE has learned about them would lead astray.
            self._process.communicate(timeout=END_S)
            self._process = None
        while self._bridges:
            run_command("ip", "link", "delete", self._bridges.pop())

    def _answer(self, command: str) -> str:
        """Give the program a command, and return its answer."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.write(command + "\n")
            process.stdin.flush()
        if not (answer := process.stdout.readline()):
            assert process.stderr is not None
            raise CommandFailed(process.stderr.read().strip() or "a delayed wire has ended")
        return answer.strip()
