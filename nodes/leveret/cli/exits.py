"""How the command ends: its exit codes, and the errors that carry them."""

from __future__ import annotations

import click

CLEAN = 0
LOST = 1
"""The demonstration found a confirmed message lost, or one that nobody sent."""
BAD_CONFIGURATION = 2
"""Also click's own code for a wrong command line."""
PORT_IN_USE = 3
FOLDER_UNUSABLE = 4
INTERNAL = 70
"""A bug or a broken machine (EX_SOFTWARE of sysexits.h)."""


class Failure(click.ClickException):
    """Ends the command with a text that says what to do, without a stack."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code
