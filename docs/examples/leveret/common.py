"""What all the programs of this folder share: the broker's address, and a clean end."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Awaitable, Callable

import trio

from leveret.client import ClientError


def arguments(purpose: str) -> argparse.ArgumentParser:
    """Return a parser that knows `--url`; `AMQP_URL` in the environment is its default."""
    parser = argparse.ArgumentParser(description=purpose)
    default = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672/")
    parser.add_argument("--url", default=default, help="where the broker is (default: %(default)s)")
    return parser


def run(main: Callable[[], Awaitable[object]]) -> None:
    """Run a program; what goes wrong between it and the broker is said in words."""
    try:
        trio.run(main)
    except ClientError as error:
        sys.exit(str(error))


async def until_stopped(work: Callable[[], Awaitable[object]]) -> None:
    """Work until Ctrl-C or SIGTERM, which cancel it: every `async with` inside ends in order."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            print("waiting for messages, Ctrl-C ends", flush=True)
            await anext(signals)
            nursery.cancel_scope.cancel()
    print("stopped", flush=True)
