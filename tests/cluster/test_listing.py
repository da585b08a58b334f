"""What all nodes have together, told by any of them; and what is ended there."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from leveret.cli.ask import ask_once
from leveret.cli.exits import NotDone
from leveret.node.control.changes import Outcome
from leveret.node.control.clients import ClientSeen, Closed
from leveret.node.control.cluster_wide import Listed
from leveret.node.control.entities import BindingSeen, ExchangeSeen, Purged, QueueSeen
from tests.cluster.conftest import Cluster
from tests.cluster.test_operating import data_of
from tests.support.nodes import LeveretProcess

T = TypeVar("T")

WITHIN_S = 30.0
VHOST = "listing"


@pytest.fixture
def shelf(cluster: Cluster) -> Iterator[Cluster]:
    """Three nodes with an empty virtual host."""
    do(cluster[0], "add_vhost", vhost=VHOST)
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    do(cluster[0], "set_permissions", user="guest", vhost=VHOST, **everything)
    yield cluster
    do(cluster[0], "delete_vhost", vhost=VHOST)


def do(member: LeveretProcess, verb: str, **arguments: object) -> Outcome:
    return ask_once(data_of(member), verb, Outcome, **arguments)


@contextlib.contextmanager
def client(member: LeveretProcess, name: str = "") -> Iterator[BlockingChannel]:
    """Log in as soon as the node has heard of the virtual host."""
    parameters = pika.ConnectionParameters(
        "127.0.0.1",
        member.ports[0],
        VHOST,
        client_properties={"connection_name": name},
        blocked_connection_timeout=WITHIN_S,
    )
    deadline_s = time.monotonic() + WITHIN_S
    while True:
        try:
            connection = pika.BlockingConnection(parameters)
            break
        except pika.exceptions.AMQPError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.05)
    try:
        yield connection.channel()
    finally:
        with contextlib.suppress(pika.exceptions.AMQPError):
            connection.close()


def told_by_all(member: LeveretProcess, verb: str, kind: type[T], **arguments: object) -> list[T]:
    """Ask until all nodes tell: one that has just started has no links for a moment."""
    deadline_s = time.monotonic() + WITHIN_S
    while (listed := ask_once(data_of(member), verb, Listed[kind], **arguments)).silent:  # type: ignore[valid-type]
        assert time.monotonic() < deadline_s, listed.silent
        time.sleep(0.05)
    return list(listed.rows)


def queues(member: LeveretProcess) -> dict[str, QueueSeen]:
    listed = told_by_all(member, "list_queues", QueueSeen, vhost=VHOST)
    return {queue.name: queue for queue in listed}


def clients(member: LeveretProcess) -> dict[str, ClientSeen]:
    """Return the clients of the virtual host by the names that they gave themselves."""
    return {
        seen.connection.user_provided_name: seen
        for seen in told_by_all(member, "list_clients", ClientSeen)
        if seen.connection.vhost == VHOST
    }


def wait_for(expected: object, look: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while (seen := look()) != expected:
        assert time.monotonic() < deadline_s, seen
        time.sleep(0.05)


def test_every_node_tells_how_full_all_queues_are(shelf: Cluster) -> None:
    with client(shelf[1]) as channel:
        channel.confirm_delivery()
        for number in range(4):
            channel.queue_declare(f"durable-{number}", durable=True)
            for _ in range(number):
                channel.basic_publish("", f"durable-{number}", b"one")
        channel.queue_declare("here", exclusive=True)
        channel.basic_publish("", "here", b"one")
        channel.basic_qos(prefetch_count=2)
        channel.basic_consume("durable-3", lambda *_: None)

        expected = {
            "durable-0": (0, 0, 0, 0),
            "durable-1": (1, 1, 0, 0),
            "durable-2": (2, 2, 0, 0),
            "durable-3": (3, 1, 2, 1),
            "here": (1, 1, 0, 0),
        }
        for member in shelf.members:
            wait_for(
                expected,
                lambda member=member: {  # type: ignore[misc]
                    name: (
                        queue.messages,
                        queue.messages_ready,
                        queue.messages_unacknowledged,
                        queue.consumers,
                    )
                    for name, queue in queues(member).items()
                },
            )
        seen = queues(shelf[2])
        assert ("node-2", None, True, False) == (
            seen["here"].leader,
            seen["here"].group,
            seen["here"].exclusive,
            seen["here"].durable,
        )
        assert seen["durable-0"].group is not None
        wait_for(
            True,
            lambda: queues(shelf[2])["durable-0"].leader in {"node-1", "node-2", "node-3"},
        )
        # While a group changes its leader, its queues have none.
        wait_for({"running"}, lambda: {queue.state for queue in queues(shelf[2]).values()})


def test_exchanges_and_bindings_are_listed_with_their_arguments(shelf: Cluster) -> None:
    with client(shelf[0]) as channel:
        channel.exchange_declare(
            "events", "topic", durable=True, arguments={"alternate-exchange": "amq.fanout"}
        )
        channel.queue_declare("orders", durable=True)
        channel.queue_bind("orders", "events", "a.#", {"n": 1})
        channel.exchange_bind("amq.fanout", "events", "b")

    folder = data_of(shelf[1])
    exchanges = ask_once(folder, "list_exchanges", list[ExchangeSeen], vhost=VHOST)
    assert 8 == len(exchanges)
    assert {"alternate-exchange": "amq.fanout"} == next(
        exchange.arguments for exchange in exchanges if exchange.name == "events"
    )
    bindings = ask_once(folder, "list_bindings", list[BindingSeen], vhost=VHOST)
    assert [
        ("", "orders", "queue", "orders", {}),
        ("events", "amq.fanout", "exchange", "b", {}),
        ("events", "orders", "queue", "a.#", {"n": 1}),
    ] == [
        (b.source_name, b.destination_name, b.destination_kind, b.routing_key, b.arguments)
        for b in bindings
    ]


def test_connections_channels_and_consumers_of_all_nodes_are_listed(shelf: Cluster) -> None:
    with client(shelf[0], "idle"), client(shelf[1], "busy") as channel:
        channel.queue_declare("orders", durable=True)
        channel.confirm_delivery()
        channel.basic_publish("", "orders", b"one")
        channel.basic_qos(prefetch_count=10)
        channel.basic_consume("orders", lambda *_: None, consumer_tag="till")
        wait_for(1, lambda: clients(shelf[0])["busy"].channels[0].messages_unacknowledged)

        for member in shelf.members:
            seen = clients(member)
            assert {"idle", "busy"} == seen.keys()
            assert ("node-1", "guest", "running", 1) == (
                seen["idle"].connection.node,
                seen["idle"].connection.user,
                seen["idle"].connection.state,
                seen["idle"].connection.channels,
            )
            busy = seen["busy"]
            assert ("127.0.0.1", shelf[1].ports[0], False) == (
                busy.connection.peer_host,
                busy.connection.port,
                busy.connection.ssl,
            )
            (told,) = busy.channels
            assert (f"{busy.connection.pid}.1", True, 10, 1, 1) == (
                told.pid,
                told.confirm,
                told.prefetch_count,
                told.consumer_count,
                told.messages_unacknowledged,
            )
            (consumer,) = busy.consumers
            assert ("orders", told.pid, "till", True, 10) == (
                consumer.queue_name,
                consumer.channel_pid,
                consumer.consumer_tag,
                consumer.ack_required,
                consumer.prefetch_count,
            )


def expect_forced(channel: BlockingChannel, reason: str) -> None:
    with pytest.raises(pika.exceptions.ConnectionClosedByBroker) as closed:
        channel.connection.process_data_events(time_limit=WITHIN_S)
    assert (320, f"CONNECTION_FORCED - {reason}") == (
        closed.value.reply_code,
        closed.value.reply_text,
    )


def test_a_connection_is_closed_through_any_node_and_told_why(shelf: Cluster) -> None:
    with client(shelf[0], "one") as one, client(shelf[1], "two") as two:
        pid = clients(shelf[2])["two"].connection.pid
        assert Closed(connections=1) == ask_once(
            data_of(shelf[2]), "close_connection", Closed, pid=pid, reason="enough"
        )

        expect_forced(two, "enough")
        wait_for({"one"}, lambda: clients(shelf[0]).keys())
        one.queue_declare("", exclusive=True)
        with pytest.raises(NotDone, match=f"no connection {pid}"):
            ask_once(data_of(shelf[0]), "close_connection", Closed, pid=pid, reason="enough")


def test_all_connections_to_a_virtual_host_are_closed_and_no_others(shelf: Cluster) -> None:
    other = pika.BlockingConnection(pika.URLParameters(shelf.url(0)))
    with client(shelf[0], "one") as one, client(shelf[1], "two") as two:
        wait_for({"one", "two"}, lambda: clients(shelf[2]).keys())
        listed = ask_once(
            data_of(shelf[2]),
            "close_all_connections",
            Listed[Closed],
            reason="closed for the night",
            vhost=VHOST,
        )

        assert 2 == sum(closed.connections for closed in listed.rows)
        expect_forced(one, "closed for the night")
        expect_forced(two, "closed for the night")
    other.channel().queue_declare("", exclusive=True)
    other.close()


def test_a_queue_is_purged_and_deleted_through_any_node(shelf: Cluster) -> None:
    with client(shelf[0]) as channel:
        channel.confirm_delivery()
        channel.queue_declare("orders", durable=True)
        for _ in range(3):
            channel.basic_publish("", "orders", b"one")

    folder = data_of(shelf[1])
    with pytest.raises(NotDone, match="has 3 messages"):
        do(shelf[1], "delete_queue", vhost=VHOST, queue="orders", if_empty=True)
    assert Purged(messages=3) == ask_once(
        folder, "purge_queue", Purged, vhost=VHOST, queue="orders"
    )
    do(shelf[1], "delete_queue", vhost=VHOST, queue="orders", if_empty=True)
    assert {} == queues(shelf[2])
    for verb in ("purge_queue", "delete_queue"):
        with pytest.raises(NotDone, match='no queue "orders" in virtual host "listing"'):
            do(shelf[2], verb, vhost=VHOST, queue="orders")


def test_a_queue_with_consumers_is_not_deleted_as_unused(shelf: Cluster) -> None:
    with client(shelf[0]) as channel:
        channel.queue_declare("orders", durable=True)
        channel.basic_consume("orders", lambda *_: None)

        with pytest.raises(NotDone, match="has 1 consumers"):
            do(shelf[1], "delete_queue", vhost=VHOST, queue="orders", if_unused=True)
        do(shelf[1], "delete_queue", vhost=VHOST, queue="orders")
        wait_for({}, lambda: queues(shelf[0]))


def test_a_node_that_is_down_is_named_and_its_own_queues_are_gone_or_down(
    shelf: Cluster,
) -> None:
    with client(shelf[0], "left"):
        with client(shelf[2]) as channel:
            channel.queue_declare("durable", durable=True)
            channel.confirm_delivery()
            channel.basic_publish("", "durable", b"one")
        shelf[2].kill()

        def seen() -> object:
            try:
                return look()
            except NotDone as error:  # there may be an election now
                return error

        def look() -> object:
            clients_ = ask_once(data_of(shelf[1]), "list_clients", Listed[ClientSeen])
            listed = ask_once(data_of(shelf[1]), "list_queues", Listed[QueueSeen], vhost=VHOST)
            names = {c.connection.user_provided_name for c in clients_.rows}
            counts = [(queue.name, queue.messages, queue.state) for queue in listed.rows]
            return (clients_.silent, "left" in names, counts)

        wait_for((["node-3"], True, [("durable", 1, "running")]), seen)


@pytest.mark.parametrize("verb", ["list_queues", "list_exchanges", "list_bindings"])
def test_a_list_of_no_virtual_host_says_so(verb: str, cluster: Cluster) -> None:
    with pytest.raises(NotDone, match='virtual host "nowhere" does not exist'):
        ask_once(data_of(cluster[0]), verb, object, vhost="nowhere")


@pytest.mark.parametrize(
    ("pid", "text"),
    [
        ("17", "'17' is no connection; they are called such as node-1.17"),
        ("node-1.x", "is no connection"),
        ("node-9.1", "no node 'node-9'; there are: node-1, node-2, node-3"),
        ("node-1.999999", "no connection node-1.999999"),
    ],
)
def test_a_connection_that_is_none_is_refused(pid: str, text: str, cluster: Cluster) -> None:
    with pytest.raises(NotDone, match=text):
        ask_once(data_of(cluster[1]), "close_connection", Closed, pid=pid, reason="x")
