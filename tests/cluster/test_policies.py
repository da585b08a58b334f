"""A policy that one node is told of is in force at whatever node leads the queue, whoever dies."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pika
from pika.adapters.blocking_connection import BlockingChannel

from leveret.cli.ask import ask_once
from leveret.node.control.changes import Outcome
from leveret.node.control.cluster_wide import Listed
from leveret.node.control.entities import QueueSeen
from leveret.node.control.replies import NodeStatus
from tests.cluster.conftest import Cluster
from tests.cluster.test_operating import data_of
from tests.support.nodes import LeveretProcess

WITHIN_S = 45.0


def set_policy(member: LeveretProcess, queue: str, **definition: object) -> None:
    settings = {key.replace("_", "-"): value for key, value in definition.items()}
    ask_once(
        data_of(member),
        "set_policy",
        Outcome,
        vhost="/",
        name=queue,
        pattern=f"^{queue}$",
        definition=json.dumps(settings),
        apply_to="queues",
    )


def seen(member: LeveretProcess, queue: str) -> QueueSeen:
    listed = ask_once(data_of(member), "list_queues", Listed[QueueSeen], vhost="/")
    (found,) = [one for one in listed.rows if one.name == queue]
    return found


def leader_of(cluster: Cluster, queue: str) -> int:
    """Return the place of the member that leads the queue."""
    names = [ask_once(data_of(one), "status", NodeStatus).name for one in cluster.members]
    leader = seen(cluster[0], queue).leader
    assert leader is not None
    return names.index(leader)


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def wait_count(channel: BlockingChannel, queue: str, wanted: int) -> None:
    wait_until(lambda: channel.queue_declare(queue, passive=True).method.message_count == wanted)


def publish(channel: BlockingChannel, queue: str, count: int) -> None:
    for number in range(count):
        channel.basic_publish("", queue, b"%d" % number)


def test_a_policy_stays_in_force_when_the_leader_of_the_queue_dies(
    cluster: Cluster, name: str
) -> None:
    dead = f"{name}.dead"
    with pika.BlockingConnection(pika.URLParameters(cluster.url(0))) as connection:
        for queue in (name, dead):
            connection.channel().queue_declare(queue, durable=True)
    leader = leader_of(cluster, name)
    teller, other = leader + 1, leader + 2

    with pika.BlockingConnection(pika.URLParameters(cluster.url(other))) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        publish(channel, name, 10)
        set_policy(
            cluster[teller],
            name,
            max_length=3,
            dead_letter_exchange="",
            dead_letter_routing_key=dead,
        )
        wait_count(channel, name, 3)
        wait_count(channel, dead, 7)

        cluster[leader].kill()

        publish(channel, name, 5)
        wait_count(channel, name, 3)
        # A dead letter that was under way may come twice.
        wait_until(lambda: channel.queue_declare(dead, passive=True).method.message_count >= 12)
        ask_once(data_of(cluster[teller]), "clear_policy", Outcome, vhost="/", name=name)
        wait_until(lambda: seen(cluster[other], name).policy is None)
        publish(channel, name, 5)
        wait_until(lambda: channel.queue_declare(name, passive=True).method.message_count > 3)


def test_a_policy_is_in_force_for_a_queue_of_another_node_alone(
    cluster: Cluster, name: str
) -> None:
    with pika.BlockingConnection(pika.URLParameters(cluster.url(0))) as connection:
        channel = connection.channel()
        channel.queue_declare(name)
        publish(channel, name, 10)
        wait_count(channel, name, 10)

        set_policy(cluster[1], name, max_length=4)
        wait_count(channel, name, 4)

    set_policy(cluster[2], name, expires=200)
    wait_until(
        lambda: (
            name
            not in {
                one.name
                for one in ask_once(
                    data_of(cluster[1]), "list_queues", Listed[QueueSeen], vhost="/", counts=False
                ).rows
            }
        )
    )


def test_a_node_that_was_away_goes_by_the_policies_that_it_missed(
    cluster: Cluster, name: str
) -> None:
    with pika.BlockingConnection(pika.URLParameters(cluster.url(0))) as connection:
        connection.channel().queue_declare(name, durable=True)
    away = leader_of(cluster, name)
    cluster[away].kill()

    set_policy(cluster[away + 1], name, max_length=2)
    cluster.heal()
    cluster.wait_spread()

    assert seen(cluster[away], name).effective_policy_definition == {"max-length": 2}
    with pika.BlockingConnection(pika.URLParameters(cluster.url(away))) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        publish(channel, name, 5)
        wait_count(channel, name, 2)
