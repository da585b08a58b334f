"""A node's process: it serves until it is told to end, and rests while an operator has it stopped.

`stop_app` ends everything but the process, its hold on the data folder and its control socket, as
RabbitMQ's verb of that name does; `start_app` is a start like any other.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

import trio

from .boot import serve_until
from .control.application import resting_controls
from .control.server import ControlServer
from .outside import REAL

if TYPE_CHECKING:
    from collections.abc import Callable

    from .config import NodeConfig
    from .endpoints import Endpoints
    from .outside import Outside

log = logging.getLogger(__name__)


async def run_node(
    config: NodeConfig, *, on_ready: Callable[[Endpoints], None], outside: Outside = REAL
) -> None:
    """Run a node until cancelled; then end it in order, within its stop timeout.

    on_ready: called when clients are served, after each start.

    Raises:
        StorageError, TransportError, OSError: it cannot start, or not go on.
    """
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_serve_and_rest, stop, config, on_ready, outside, nursery.cancel_scope)
        try:
            await trio.sleep_forever()
        finally:
            stop.set()


async def _serve_and_rest(
    stop: trio.Event,
    config: NodeConfig,
    on_ready: Callable[[Endpoints], None],
    outside: Outside,
    done: trio.CancelScope,
) -> None:
    """Serve and rest in turn until `stop`, shielded from the cancellation that causes it."""
    with trio.CancelScope(shield=True):
        while await _serve(stop, config, on_ready, outside):
            log.info("the application is stopped: the process waits for start_app")
            if not await _rest(stop, config):
                break
    done.cancel()


async def _serve(
    stop: trio.Event,
    config: NodeConfig,
    on_ready: Callable[[Endpoints], None],
    outside: Outside,
) -> bool:
    """Run the node; return whether an operator stopped it, and it may be started again."""
    end = trio.Event()
    is_stopped_by_operator = False

    def stop_app() -> None:
        nonlocal is_stopped_by_operator
        is_stopped_by_operator = True
        end.set()

    async def follow_stop() -> None:
        await stop.wait()
        end.set()

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def set_deadline() -> None:
                await end.wait()
                scope.deadline = trio.current_time() + config.node.stop_timeout_s

            nursery.start_soon(follow_stop)
            nursery.start_soon(set_deadline)
            serve = partial(serve_until, end, config, on_ready=on_ready, outside=outside)
            await serve(stop_app=stop_app)
            nursery.cancel_scope.cancel()
    if scope.cancelled_caught:
        log.warning("not stopped in time", extra={"within_s": config.node.stop_timeout_s})
    return is_stopped_by_operator and not stop.is_set()


async def _rest(stop: trio.Event, config: NodeConfig) -> bool:
    """Wait until an operator starts the node again; False if the process is to end instead."""
    start = trio.Event()
    async with trio.open_nursery() as nursery:

        async def follow_stop() -> None:
            await stop.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(follow_stop)
        await nursery.start(ControlServer(config.node.data_dir, resting_controls(start.set)).run)
        await start.wait()
        nursery.cancel_scope.cancel()
    return start.is_set() and not stop.is_set()
