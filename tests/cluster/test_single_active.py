"""A queue with a single active consumer keeps that one when its leader changes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pika

from leveret.cli.ask import ask_once
from leveret.node.control.cluster_wide import Listed
from leveret.node.control.entities import QueueSeen
from tests.cluster.conftest import Cluster, Opener
from tests.support.nodes import LeveretProcess

WITHIN_S = 30.0


def data_of(member: LeveretProcess) -> Path:
    return Path(member.arguments[member.arguments.index("--data-dir") + 1])


def seen(cluster: Cluster, queue: str) -> QueueSeen:
    listed = ask_once(data_of(cluster[0]), "list_queues", Listed[QueueSeen], vhost="/")
    return next(row for row in listed.rows if row.name == queue)


def move(cluster: Cluster, group: int, to: str) -> None:
    command = ["cluster", "transfer", str(group), to, "--data-dir", str(data_of(cluster[0]))]
    subprocess.run([sys.executable, "-m", "leveret.cli.main", "ctl", *command], check=True)


def wait_for(is_true: Callable[[], bool], *connections: pika.BlockingConnection) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not is_true():
        assert time.monotonic() < deadline
        for connection in connections:
            connection.process_data_events(time_limit=0.02)


def test_a_change_of_leader_makes_no_other_consumer_the_active_one(
    cluster: Cluster, name: str, connect: Opener
) -> None:
    consumers = [connect(cluster.url(place)) for place in range(3)]
    setup = consumers[0].channel()
    arguments = {"x-queue-type": "quorum", "x-single-active-consumer": True}
    setup.queue_declare(name, durable=True, arguments=arguments)
    got: list[int] = []
    # The active one is at the last node: the others are there before it after most changes.
    for place in (2, 0, 1):
        channel = consumers[place].channel()
        channel.basic_consume(name, lambda *_, place=place: got.append(place), auto_ack=True)
    publishing = connect(cluster.url(0)).channel()
    publishing.confirm_delivery()
    group = seen(cluster, name).group
    assert group is not None

    expected = 0
    for leader in ("node-1", "node-2", "node-3", "node-1"):
        move(cluster, group, leader)
        for _ in range(5):
            publishing.basic_publish("", name, b"x")
        expected += 5
        wait_for(lambda: len(got) >= expected, *consumers)  # noqa: B023 - called at once

    assert set(got) == {2}
    subprocess.run(
        [
            *(sys.executable, "-m", "leveret.cli.main", "ctl", "cluster", "rebalance"),
            *("--data-dir", str(data_of(cluster[0]))),
        ],
        check=True,
    )
