"""`stop_app` and `start_app`: the node goes and comes, its process stays."""

from __future__ import annotations

import contextlib

import pika
import pytest

from tests.cluster.conftest import Cluster, NodeMaker
from tests.cluster.test_operating import ctl, data_of


def connected(url: str) -> pika.BlockingConnection:
    return pika.BlockingConnection(pika.URLParameters(url))


def test_what_is_durable_is_there_after_stop_app_and_start_app(make_node: NodeMaker) -> None:
    node = make_node()
    node.start()
    data, process = str(data_of(node)), node.pid
    client = connected(node.urls[0])
    channel = client.channel()
    channel.confirm_delivery()
    channel.queue_declare("durable", durable=True)
    channel.queue_declare("transient")
    channel.basic_publish("", "durable", b"kept")

    stopped = ctl("stop_app", "--data-dir", data)
    assert (0, "") == (stopped.returncode, stopped.stderr)

    with pytest.raises(pika.exceptions.ConnectionClosedByBroker) as closed:
        client.process_data_events(time_limit=30)
    assert 320 == closed.value.reply_code
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        connected(node.urls[0])
    asked = ctl("list_queues", "--data-dir", data)
    assert 6 == asked.returncode
    assert "the application of this node is stopped; start it with" in asked.stderr
    assert 0 == ctl("stop_app", "--data-dir", data).returncode

    started = ctl("start_app", "--data-dir", data)
    assert (0, "running\n") == (started.returncode, started.stdout)
    assert 0 == ctl("start_app", "--data-dir", data).returncode
    assert process == node.pid

    with contextlib.closing(connected(node.urls[0])) as client:
        channel = client.channel()
        assert 1 == channel.queue_declare("durable", passive=True).method.message_count
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="no queue 'transient'"):
            channel.queue_declare("transient", passive=True)


def test_a_node_whose_application_is_stopped_ends_in_order(make_node: NodeMaker) -> None:
    node = make_node()
    node.start()
    assert 0 == ctl("stop_app", "--data-dir", str(data_of(node))).returncode

    assert 0 == node.stop()


def test_the_other_nodes_go_on_and_the_stopped_one_catches_up(cluster: Cluster, name: str) -> None:
    data = str(data_of(cluster[1]))
    with contextlib.closing(connected(cluster.url(0))) as client:
        channel = client.channel()
        channel.confirm_delivery()
        channel.queue_declare(name, durable=True)
        assert 0 == ctl("stop_app", "--data-dir", data).returncode
        try:
            for number in range(100):
                channel.basic_publish("", name, b"%d" % number)
        finally:
            started = ctl("start_app", "--data-dir", data)
        assert 0 == started.returncode, started.stderr

    with contextlib.closing(connected(cluster.url(1))) as client:
        assert 100 == client.channel().queue_declare(name, passive=True).method.message_count
