"""SIGKILL of a single node in the middle of a stream of confirmed messages."""

from __future__ import annotations

import random
import time

import pika

from chaos.load import Consumer, Publisher
from chaos.verdict import Verdict, judge
from tests.support.nodes import LeveretProcess

WINDOW = 500
CONFIRMED_MAX = 4_000
"""The blow falls after 1 to so many confirms, and up to `DELAY_MAX_S` later."""
DELAY_MAX_S = 0.02


def kill_once(node: LeveretProcess, rng: random.Random, *, queue: str) -> Verdict:
    """Publish to a running node, kill it, start it again and take out what it has.

    The blow is drawn from `rng`: after which confirm, and how long after it.
    The queue is new, and deleted at the end if all is well; the node runs then.

    Raises:
        LoadEnded, NodeFailed: the node did not serve us before or after the blow.
    """
    with pika.BlockingConnection(pika.URLParameters(node.urls[0])) as connection:
        connection.channel().queue_declare(queue, durable=True)
    blow_at, delay_s = rng.randint(1, CONFIRMED_MAX), rng.random() * DELAY_MAX_S
    publisher = Publisher(node.urls[0], queue, window=WINDOW)
    publisher.start()
    publisher.wait_confirmed(blow_at, within_s=60)
    time.sleep(delay_s)
    node.kill()
    publisher.wait_ended()
    node.start()
    consumer = Consumer(node.urls[0], queue, prefetch=WINDOW)
    with pika.BlockingConnection(pika.URLParameters(node.urls[0])) as connection:
        channel = connection.channel()
        count = channel.queue_declare(queue, passive=True).method.message_count
        consumer.start()
        consumer.wait_distinct(count, within_s=30)
        consumer.close()
        left = channel.queue_declare(queue, passive=True).method.message_count
        verdict = judge(publisher.next, publisher.confirmed, consumer.deliveries)
        if verdict.is_clean and left == 0:
            channel.queue_delete(queue)
    if left:
        raise AssertionError(f"{left} of {count} messages are there again after their acks")
    return verdict


def kill_often(node: LeveretProcess, *, runs: int, seed: int) -> list[Verdict]:
    """Kill a node `runs` times on the same data, printing a line a run."""
    rng = random.Random(seed)
    verdicts = []
    for run in range(1, runs + 1):
        began_s = time.monotonic()
        verdict = kill_once(node, rng, queue=f"kill-{run}")
        print(f"run {run:3}  {verdict}  {time.monotonic() - began_s:.1f} s", flush=True)
        verdicts.append(verdict)
    return verdicts
