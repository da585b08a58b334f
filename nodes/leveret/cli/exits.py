"""How the command ends: its exit codes, and the errors that carry them.

0 is a clean end. 1: the demonstration found a confirmed message lost, or one that nobody sent,
or `leveret perf --verify` one that did not come once, whole and in order.
2 is also click's own code for a wrong command line.
"""

from __future__ import annotations

import sys
from typing import IO

import click


class Failure(click.ClickException):
    """Ends the command with a text that says what to do, without a stack."""

    def show(self, file: IO[str] | None = None) -> None:
        """Print the text to standard error."""
        click.echo(f"leveret: {self.format_message()}", file=file or sys.stderr)


class PromiseBroken(Failure):
    """A confirmed message was lost, or one came that nobody sent."""

    exit_code = 1


class BadConfiguration(Failure):
    """Something must be written differently: a setting, a file, a flag."""

    exit_code = 2


class PortUnusable(Failure):
    """An address cannot be listened on."""

    exit_code = 3


class DataUnusable(Failure):
    """The data folder is held by another process, not readable, or damaged."""

    exit_code = 4


class NodeUnreachable(Failure):
    """No running node was found, or it does not answer."""

    exit_code = 5


class NotDone(Failure):
    """The node refused what was asked, or could not do it now."""

    exit_code = 6


class InternalFailure(Failure):
    """A bug, or a broken machine (EX_SOFTWARE of sysexits.h)."""

    exit_code = 70


KINDS: dict[int, type[Failure]] = {
    kind.exit_code: kind for kind in (BadConfiguration, PortUnusable, DataUnusable, InternalFailure)
}
"""The failures of a node process by its exit code."""
