"""The demonstration's two programs: a producer with confirms, and a consumer with acks.

`python -m leveret.cli.demo produce|consume RUN PARENT URL…` talks AMQP by pika, a foreign client
as any user has it. Both know all nodes and go to the next one when theirs is lost. What happens
is told as JSON lines on standard output; SIGTERM asks for the end, the producer first waits for
its last confirms.
"""
# ruff: noqa: TID251 - its own process, on the real clock, without trio: so pika wants it
# mypy: disable-error-code=import-untyped

from __future__ import annotations

import itertools
import json
import signal
import sys
import time
from collections.abc import Sequence

import pika
import pika.exceptions
from pika.adapters.blocking_connection import BlockingChannel
from pika.channel import Channel
from pika.frame import Method

from leveret.cli.ledger import ConfirmWindow
from leveret.cli.lifetime import end_with_parent

QUEUE = "demo"
WINDOW = 256
"""Unconfirmed messages at most; then the producer waits."""
RATE_PER_S = 500
"""Messages a second at most: a demonstration, not a benchmark."""
PREFETCH = 200
TICK_S = 0.01
TELL_S = 0.1
"""How often the programs tell what happened."""
RETRY_S = 0.2
STALL_S = 15.0
"""Without a confirm for so long the producer tries another node."""


class Asked:
    """Whether SIGTERM asked for the end; Ctrl-C is for the parent, which then asks."""

    def __init__(self) -> None:
        self.to_end = False
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _on_signal(self, _number: int, _frame: object) -> None:
        self.to_end = True


def tell(**facts: object) -> None:
    """Print one line for the parent."""
    print(json.dumps(facts, separators=(",", ":")), flush=True)


def parameters(url: str) -> pika.URLParameters:
    """Return how to connect: quick to give up, because there are other nodes."""
    chosen = pika.URLParameters(url)
    chosen.connection_attempts = 1
    chosen.socket_timeout = 2
    chosen.stack_timeout = 4
    chosen.heartbeat = 5
    return chosen


class Producer:
    """Publishes numbered messages, on one connection after another."""

    def __init__(self, run: str, asked: Asked) -> None:
        self._run = run
        self._asked = asked
        self._window = ConfirmWindow(WINDOW)
        self._confirmed: list[int] = []
        self._told_at = 0.0
        self._allowance = 0.0
        self._ticked_at = time.monotonic()
        self._stalled_since = 0.0
        self._connection: pika.SelectConnection
        self._channel: Channel | None = None

    @property
    def is_done(self) -> bool:
        return self._asked.to_end and self._window.is_empty

    def connect(self, url: str) -> None:
        """Publish on one connection until it is lost, or all is done."""
        self._connection = pika.SelectConnection(
            parameters(url),
            on_open_callback=self._on_open,
            on_open_error_callback=self._on_end,
            on_close_callback=self._on_end,
        )
        self._connection.ioloop.start()
        self._channel = None
        self._tell(time.monotonic())

    def _on_open(self, connection: pika.SelectConnection) -> None:
        connection.channel(on_open_callback=self._on_channel)

    def _on_channel(self, channel: Channel) -> None:
        channel.add_on_close_callback(lambda *_: self._close())
        channel.queue_declare(QUEUE, durable=True, callback=lambda _: self._on_queue(channel))

    def _on_queue(self, channel: Channel) -> None:
        channel.confirm_delivery(self._on_confirm, callback=lambda _: self._on_ready(channel))

    def _on_ready(self, channel: Channel) -> None:
        self._window.reconnected()
        self._channel = channel
        self._ticked_at = time.monotonic()
        self._stalled_since = self._ticked_at
        self._tick()

    def _on_end(self, connection: pika.SelectConnection, _reason: object) -> None:
        connection.ioloop.stop()

    def _on_confirm(self, frame: Method) -> None:
        now = time.monotonic()
        self._stalled_since = now
        tag, multiple = frame.method.delivery_tag, frame.method.multiple
        if isinstance(frame.method, pika.spec.Basic.Ack):
            self._confirmed += self._window.confirm(tag, now, multiple=multiple)
        else:
            self._window.refuse(tag, multiple=multiple)

    def _tick(self) -> None:
        """Publish what the rate and the window allow, tell what happened, and come again."""
        channel = self._channel
        if channel is None or not channel.is_open:
            return
        now = time.monotonic()
        self._allowance = min(self._allowance + (now - self._ticked_at) * RATE_PER_S, WINDOW)
        self._ticked_at = now
        while self._allowance >= 1:
            sending = self._window.next(now, is_new_allowed=not self._asked.to_end)
            if sending is None:
                break
            self._allowance -= 1
            body = json.dumps([self._run, sending.number, sending.attempt])
            channel.basic_publish("", QUEUE, body.encode(), pika.BasicProperties(delivery_mode=2))
        if now - self._told_at >= TELL_S:
            self._tell(now)
        if self.is_done or (not self._window.is_empty and now - self._stalled_since > STALL_S):
            self._close()
        else:
            self._connection.ioloop.call_later(TICK_S, self._tick)

    def _close(self) -> None:
        if self._connection.is_open:
            self._connection.close()

    def _tell(self, now: float) -> None:
        self._told_at = now
        pause = self._window.note_pause(now)
        tell(
            published=self._window.published,
            confirmed=self._confirmed,
            pause_s=round(pause, 3),
            longest_pause_s=round(self._window.longest_pause_s, 3),
        )
        self._confirmed = []


def produce(run: str, urls: Sequence[str], asked: Asked) -> None:
    """Publish until asked to end and everything sent is confirmed."""
    producer = Producer(run, asked)
    for url in itertools.cycle(urls):
        producer.connect(url)
        if producer.is_done:
            return
        time.sleep(RETRY_S)


def consume(run: str, urls: Sequence[str], asked: Asked) -> None:
    """Receive and acknowledge until asked to end."""
    # Begins at another node than the producer, so that messages cross the cluster.
    for url in itertools.cycle([*urls[1:], urls[0]]):
        try:
            connection = pika.BlockingConnection(parameters(url))
            channel = connection.channel()
            channel.basic_qos(prefetch_count=PREFETCH)
            channel.queue_declare(QUEUE, durable=True)
            _consume_from(channel, run, asked)
            connection.close()
        except (pika.exceptions.AMQPError, OSError) as error:
            print(f"consumer lost {url}: {error!r}", file=sys.stderr, flush=True)
            time.sleep(RETRY_S)
        if asked.to_end:
            return


def _consume_from(channel: BlockingChannel, run: str, asked: Asked) -> None:
    """Receive on one connection; what is acknowledged was told before."""
    got: list[list[object]] = []
    tag, told_at = 0, 0.0
    for method, _, body in channel.consume(QUEUE, inactivity_timeout=TELL_S):
        if method is not None and body is not None:
            tag = method.delivery_tag
            got.append([*read_body(body, run), method.redelivered])
        now = time.monotonic()
        if got and (now - told_at >= TELL_S or len(got) >= PREFETCH // 2):
            tell(received=got)
            channel.basic_ack(tag, multiple=True)
            got, told_at = [], now
        if asked.to_end and not got:
            return


def read_body(body: bytes, run: str) -> tuple[int, int]:
    """Return number and attempt of a message; (-1, 0) for another run's, (-2, 0) for rubbish."""
    try:
        its_run, number, attempt = json.loads(body)
    except (ValueError, TypeError):  # no JSON, or JSON that is no list
        return -2, 0
    if not (type(number) is int and type(attempt) is int and number >= 0):
        return -2, 0
    return (number, attempt) if its_run == run else (-1, 0)


def _main() -> None:
    role, run, parent, *urls = sys.argv[1:]
    asked = Asked()
    end_with_parent(int(parent))
    {"produce": produce, "consume": consume}[role](run, urls, asked)


if __name__ == "__main__":
    _main()
