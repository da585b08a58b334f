"""What all the programs of this folder share: the broker's address, and a clean end."""

from __future__ import annotations

import argparse
import os
import signal

import pika
from pika.adapters.blocking_connection import BlockingChannel


def arguments(purpose: str) -> argparse.ArgumentParser:
    """Return a parser that knows `--url`; `AMQP_URL` in the environment is its default."""
    parser = argparse.ArgumentParser(description=purpose)
    default = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672/")
    parser.add_argument("--url", default=default, help="where the broker is (default: %(default)s)")
    return parser


def connect(url: str) -> pika.BlockingConnection:
    return pika.BlockingConnection(pika.URLParameters(url))


def consume_until_stopped(connection: pika.BlockingConnection, channel: BlockingChannel) -> None:
    """Handle messages until Ctrl-C or SIGTERM, then close the connection.

    The signal only asks for the end: a message being handled is finished and acknowledged first.
    """

    def stop(number: int, frame: object) -> None:
        connection.add_callback_threadsafe(channel.stop_consuming)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    print("waiting for messages, Ctrl-C ends", flush=True)
    channel.start_consuming()
    connection.close()
    print("stopped", flush=True)
