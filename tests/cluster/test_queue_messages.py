"""A queue's messages seen by an operator, through nodes that do not lead the queue."""

from __future__ import annotations

import time

import pika
import pytest

from leveret.cli.ask import ask_once
from leveret.cli.exits import NotDone
from leveret.node.control.cluster_wide import Listed
from leveret.node.control.entities import QueueSeen
from leveret.node.control.queue_actions import Cancelled, PauseDone
from leveret.node.control.queue_messages import MessageSeen
from tests.cluster.conftest import Cluster, Opener
from tests.cluster.test_listing import wait_for
from tests.cluster.test_operating import data_of

DURABLE = pytest.mark.parametrize("durable", [True, False], ids=["durable", "transient"])


def peek(cluster: Cluster, place: int, queue: str, **arguments: object) -> list[MessageSeen]:
    return ask_once(
        data_of(cluster[place]), "peek", list[MessageSeen], vhost="/", queue=queue, **arguments
    )


def publish(url: str, queue: str, bodies: list[bytes], **properties: object) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        for body in bodies:
            channel.basic_publish("", queue, body, pika.BasicProperties(**properties))


@DURABLE
def test_a_peek_shows_all_and_touches_nothing(
    durable: bool, cluster: Cluster, name: str, connect: Opener
) -> None:
    channel = connect(cluster.url(1)).channel()
    channel.queue_declare(name, durable=durable)
    publish(cluster.url(0), name, [b"one", b"two"], headers={"tenant": "a"}, message_id="m")
    publish(cluster.url(0), name, [b"\xff\x00"], content_type="application/octet-stream")
    publish(cluster.url(0), name, [b"late"], headers={"x-delay": 3_600_000})
    now_ms = time.time() * 1000
    (got, _, body) = channel.basic_get(name)
    assert (got.redelivered, body) == (False, b"one")

    for place in range(3):
        held, ready, octets, delayed = peek(cluster, place, name)
        assert ["unacknowledged", "ready", "ready", "delayed"] == [
            seen.state for seen in (held, ready, octets, delayed)
        ]
        assert held.holder is not None
        assert (2, 1, "") == (held.holder.node, held.holder.channel, held.holder.consumer_tag)
        assert held.holder.connection is not None
        assert held.holder.connection.startswith("node-2.")
        assert abs(held.holder.since_ms - now_ms) < 60_000
        assert ("", name, {"message_id": "m"}, {"tenant": "a"}, "two", 3) == (
            ready.exchange,
            ready.routing_key,
            ready.properties,
            ready.headers,
            ready.payload,
            ready.payload_bytes,
        )
        assert ("base64", "/wA=") == (octets.payload_encoding, octets.payload)
        assert delayed.due_at_ms is not None
        assert abs(delayed.due_at_ms - now_ms - 3_600_000) < 60_000

    (again, _, body) = channel.basic_get(name)
    assert (again.redelivered, body) == (False, b"two")


def test_a_peek_names_the_consumer_that_holds_a_message(
    cluster: Cluster, name: str, connect: Opener
) -> None:
    channel = connect(cluster.url(2)).channel()
    channel.queue_declare(name, durable=True)
    channel.basic_consume(name, lambda *_: None, consumer_tag="till")
    publish(cluster.url(0), name, [b"one"])

    def holders() -> list[object]:
        return [seen.holder and seen.holder.consumer_tag for seen in peek(cluster, 0, name)]

    wait_for(["till"], holders)


def test_a_peek_begins_where_it_is_told_and_ends_before_it_is_too_much(
    cluster: Cluster, name: str, connect: Opener
) -> None:
    connect(cluster.url(0)).channel().queue_declare(name, durable=True)
    publish(cluster.url(0), name, [b"%04d" % number for number in range(2_500)])

    def payloads(**arguments: object) -> list[str]:
        return [seen.payload for seen in peek(cluster, 1, name, **arguments)]

    assert ["2400", "2401"] == payloads(offset=2_400, count=2)
    assert ["2499"] == payloads(offset=2_499, count=100)
    assert [] == payloads(offset=2_500)
    assert ["00"] == payloads(count=1, body_bytes=2)


def test_headers_that_are_too_much_for_one_answer_come_with_the_next(
    cluster: Cluster, name: str, connect: Opener
) -> None:
    connect(cluster.url(0)).channel().queue_declare(name, durable=True)
    publish(cluster.url(0), name, [b"x"] * 4, headers={"large": "l" * 100_000})

    assert [0, 1] == [seen.position for seen in peek(cluster, 1, name)]
    assert [2, 3] == [seen.position for seen in peek(cluster, 1, name, offset=2)]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"queue": "no-such-queue"}, 'no queue "no-such-queue" in virtual host "/"'),
        ({"queue": "q", "count": 101}, "count must be 0 to 100, not 101"),
        ({"queue": "q", "offset": -1}, "offset must not be negative, not -1"),
    ],
)
def test_a_peek_that_makes_no_sense_is_refused(
    arguments: dict[str, object], text: str, cluster: Cluster
) -> None:
    with pytest.raises(NotDone, match=text):
        ask_once(data_of(cluster[0]), "peek", object, vhost="/", **arguments)


@DURABLE
def test_delayed_messages_are_listed_and_cancelled_through_any_node(
    durable: bool, cluster: Cluster, name: str, connect: Opener
) -> None:
    channel = connect(cluster.url(0)).channel()
    channel.queue_declare(name, durable=durable)
    publish(cluster.url(1), name, [b"now"])
    for delay_ms in (3_600_000, 1_800_000, 2_700_000):
        publish(cluster.url(1), name, [b"%d" % delay_ms], headers={"x-delay": delay_ms})

    def listed(place: int) -> list[tuple[str, int]]:
        seen = ask_once(
            data_of(cluster[place]), "list_delayed", list[MessageSeen], vhost="/", queue=name
        )
        return [(message.payload, message.sequence) for message in seen]

    first, second, third = listed(2)
    assert ["1800000", "2700000", "3600000"] == [first[0], second[0], third[0]]
    assert Cancelled(messages=1) == cancel(cluster, 1, name, second[1])
    assert [first, third] == listed(0)
    with pytest.raises(NotDone, match="is not delayed"):
        cancel(cluster, 1, name, second[1])
    assert Cancelled(messages=2) == cancel(cluster, 2, name, None)
    assert [] == listed(1)
    assert ["now"] == [seen.payload for seen in peek(cluster, 1, name)]


def cancel(cluster: Cluster, place: int, queue: str, sequence: int | None) -> Cancelled:
    return ask_once(
        data_of(cluster[place]),
        "cancel_delayed",
        Cancelled,
        vhost="/",
        queue=queue,
        sequence=sequence,
    )


def pause(cluster: Cluster, place: int, verb: str, queue: str) -> bool:
    done = ask_once(data_of(cluster[place]), verb, PauseDone, vhost="/", queue=queue)
    assert (verb == "pause_queue") == done.is_paused
    return done.is_changed


def state(cluster: Cluster, place: int, queue: str) -> str:
    listed = ask_once(data_of(cluster[place]), "list_queues", Listed[QueueSeen], vhost="/")
    return next(seen.state for seen in listed.rows if seen.name == queue)


@DURABLE
def test_a_paused_queue_keeps_its_consumers_and_what_they_hold_and_delivers_nothing(
    durable: bool, cluster: Cluster, name: str, connect: Opener
) -> None:
    connection = connect(cluster.url(2))
    channel = connection.channel()
    channel.queue_declare(name, durable=durable)
    got: list[bytes] = []
    channel.basic_consume(name, lambda *delivery: got.append(delivery[3]))
    publish(cluster.url(0), name, [b"before"])
    wait_for([b"before"], lambda: connection.process_data_events(0.05) or got)

    assert pause(cluster, 0, "pause_queue", name)
    assert not pause(cluster, 1, "pause_queue", name)
    publish(cluster.url(1), name, [b"after"])
    assert "paused" == state(cluster, 0, name)
    assert (None, None, None) == connect(cluster.url(1)).channel().basic_get(name)
    connection.process_data_events(0.2)
    assert [b"before"] == got
    assert ["unacknowledged", "ready"] == [seen.state for seen in peek(cluster, 1, name)]

    assert pause(cluster, 1, "resume_queue", name)
    wait_for([b"before", b"after"], lambda: connection.process_data_events(0.05) or got)
    assert "running" == state(cluster, 2, name)


def test_a_queue_stays_paused_when_all_nodes_start_anew(
    cluster: Cluster, name: str, connect: Opener
) -> None:
    connect(cluster.url(0)).channel().queue_declare(name, durable=True)
    publish(cluster.url(0), name, [b"one"])
    assert pause(cluster, 1, "pause_queue", name)

    cluster.kill_all()
    cluster.heal()

    wait_for("paused", lambda: state(cluster, 0, name))
    channel = connect(cluster.url(1)).channel()
    assert (None, None, None) == channel.basic_get(name)
    assert pause(cluster, 2, "resume_queue", name)
    assert b"one" == channel.basic_get(name)[2]
