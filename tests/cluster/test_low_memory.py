"""A node that is low on memory: publishers of all nodes wait, consumers go on."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from chaos.load import Consumer, Publisher
from chaos.verdict import judge
from leveret.cli.ask import ask_once
from leveret.node.control.alarms import AlarmSeen, MemoryLimit
from leveret.node.control.replies import NodeStatus
from tests.cluster.conftest import Cluster, NodeMaker, Opener
from tests.support.nodes import LeveretProcess


def data_of(member: LeveretProcess) -> Path:
    return Path(member.arguments[member.arguments.index("--data-dir") + 1])


def set_watermark(member: LeveretProcess, watermark: str) -> MemoryLimit:
    verb = "set_vm_memory_high_watermark"
    return ask_once(data_of(member), verb, MemoryLimit, watermark=watermark)


def test_a_node_low_on_memory_blocks_publishers_of_all_nodes_and_consumers_go_on(
    cluster: Cluster,
    name: str,
    connect: Opener,
    publish: Callable[..., Publisher],
    consume: Callable[..., Consumer],
) -> None:
    connect(cluster.url(0)).channel().queue_declare(name, durable=True)
    publisher = publish(cluster.url(1), name, window=100)
    publisher.wait_confirmed(500, within_s=30)

    try:
        assert 0 == set_watermark(cluster[0], "0").memory_limit_bytes
        publisher.wait("connection.blocked", lambda: publisher.is_blocked, within_s=30)
        alarms = ask_once(data_of(cluster[2]), "alarms", list[AlarmSeen])
        assert alarms == [AlarmSeen(node="node-1", reason="low on memory")]
        consumer = consume(cluster.url(2), name)
        consumer.wait("500", lambda: len(consumer.distinct) >= 500, within_s=30)
        assert publisher.is_blocked
    finally:
        set_watermark(cluster[0], "0.6")
    publisher.wait("unblocked", lambda: not publisher.is_blocked, within_s=30)
    publisher.wait_confirmed(len(publisher.confirmed) + 500, within_s=30)
    publisher.finish()
    consumer.wait_distinct(publisher.next)
    consumer.close()

    verdict = judge(publisher.next, publisher.confirmed, consumer.deliveries)
    assert verdict.is_clean, verdict


def test_the_watermark_of_the_settings_holds_from_the_start(
    make_node: NodeMaker, connect: Opener, publish: Callable[..., Publisher]
) -> None:
    node = make_node("node.memory_watermark=1MiB")
    node.start()
    connect(node.urls[0]).channel().queue_declare("q", durable=True)
    publisher = publish(node.urls[0], "q")

    publisher.wait("connection.blocked", lambda: publisher.is_blocked, within_s=30)

    set_watermark(node, "0.6")
    publisher.wait("unblocked", lambda: not publisher.is_blocked, within_s=30)
    publisher.wait_confirmed(100, within_s=30)
    publisher.finish()


def test_a_transient_queue_that_fills_the_memory_blocks_publishers_until_it_is_consumed(
    make_node: NodeMaker, connect: Opener
) -> None:
    body = bytes(256 << 10)
    node = make_node()
    node.start()
    used_bytes = ask_once(data_of(node), "status", NodeStatus).memory_bytes
    assert used_bytes is not None
    set_watermark(node, str(used_bytes + (64 << 20)))
    publishing = connect(node.urls[0])
    blocked: list[bool] = []
    publishing.add_on_connection_blocked_callback(lambda *_: blocked.append(True))
    publishing.add_on_connection_unblocked_callback(lambda *_: blocked.append(False))
    channel = publishing.channel()
    channel.queue_declare("q", exclusive=False)
    published = 0
    deadline_s = time.monotonic() + 60
    while not blocked:
        assert time.monotonic() < deadline_s
        if published < 1000:
            channel.basic_publish("", "q", body)
            published += 1
        publishing.process_data_events(0.001)

    # What was published last may still be in the socket, which is not read.
    consuming = connect(node.urls[0]).channel()
    for _ in consuming.consume("q", auto_ack=True, inactivity_timeout=0.1):
        publishing.process_data_events(0)
        if not blocked[-1]:
            break
        assert time.monotonic() < deadline_s

    assert blocked == [True, False]
