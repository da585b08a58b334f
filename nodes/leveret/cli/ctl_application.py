"""`leveret ctl`: stopping and starting what a node's process does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click
import trio

from leveret.cli.ask import ask_node
from leveret.cli.ctl_target import asks
from leveret.cli.exits import NodeUnreachable, NotDone
from leveret.node.control.application import ApplicationState

if TYPE_CHECKING:
    from pathlib import Path

    from leveret.cli.ctl_target import Target

WITHIN_S: Final = 60.0
LOOK_S: Final = 0.2


@click.command("stop_app")
@asks
def stop_app(*, target: Target) -> None:
    """Stop the node as SIGTERM does, but for its process, until start_app.

    Its clients are disconnected, other nodes lead its queues, and what is not durable goes. The
    other nodes go on as long as they are a majority.

    \b
    Examples:
      leveret ctl stop_app --node node-2
    """  # noqa: D301 - click's mark for lines that are kept as they are
    state = _bring_to(target, "stop_app", "stopped")
    target.say(state, "stopped; start it again with: leveret ctl start_app")


@click.command("start_app")
@asks
def start_app(*, target: Target) -> None:
    """Start what stop_app has stopped, and wait until clients are served.

    \b
    Examples:
      leveret ctl start_app --node node-2
    """  # noqa: D301
    target.say(_bring_to(target, "start_app", "running"), "running")


VERBS = (stop_app, start_app)


def _bring_to(target: Target, verb: str, wanted: str) -> ApplicationState:
    """Ask for `verb` until the node is as `wanted`.

    Raises:
        Failure: it is not there, or not so in time.
    """
    return trio.run(_brought_to, target.folder(), verb, wanted)


async def _brought_to(folder: Path, verb: str, wanted: str) -> ApplicationState:
    was_there = False
    with trio.move_on_after(WITHIN_S):
        while True:
            try:
                reply = await ask_node(folder, verb, ApplicationState)
            except NodeUnreachable:
                # Between the two its socket is another one; before, there is none.
                if not was_there:
                    raise
            else:
                was_there = True
                if reply.state == wanted:
                    return reply
            await trio.sleep(LOOK_S)
    raise NotDone(
        f"the node is not {wanted} after {WITHIN_S:g} s; see `leveret ctl status` and its log"
    )
