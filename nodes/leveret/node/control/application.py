"""`stop_app` and `start_app`: what a node answers to them while it serves, and while it rests.

Both answer with the state at once, and are asked again until it is the one that is wanted.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

import msgspec

from .controls import ControlError, Controls, NoArguments

if TYPE_CHECKING:
    from collections.abc import Callable

    from .parts import NodeParts


class ApplicationState(msgspec.Struct, frozen=True, kw_only=True):
    """running: clients are served; stopped: nothing but the process is left of the node."""

    state: Literal["starting", "running", "stopping", "stopped"]


def add_application_verbs(
    controls: Controls, parts: NodeParts, stop_app: Callable[[], None]
) -> None:
    """Put the verbs of a node that serves, or is about to, into the table."""
    controls.add("stop_app", NoArguments, partial(_stop, stop_app))
    controls.add("start_app", NoArguments, partial(_look, parts))


def resting_controls(start_app: Callable[[], None]) -> Controls:
    """Return what a node that rests can do."""
    controls = Controls(otherwise=_not_running)
    controls.add("stop_app", NoArguments, _is_stopped)
    controls.add("start_app", NoArguments, partial(_start, start_app))
    return controls


def _not_running() -> ControlError:
    return ControlError(
        "unavailable",
        "the application of this node is stopped",
        remedy="start it with: leveret ctl start_app",
    )


async def _stop(stop_app: Callable[[], None], _: NoArguments) -> ApplicationState:
    stop_app()
    return ApplicationState(state="stopping")


async def _look(parts: NodeParts, _: NoArguments) -> ApplicationState:
    return ApplicationState(state="running" if parts.phase == "serving" else "starting")


async def _is_stopped(_: NoArguments) -> ApplicationState:
    return ApplicationState(state="stopped")


async def _start(start_app: Callable[[], None], _: NoArguments) -> ApplicationState:
    start_app()
    return ApplicationState(state="starting")
