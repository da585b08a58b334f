"""Users, permissions and virtual hosts, changed at one node and in force at the others."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from leveret.cli.ask import ask_once
from leveret.cli.exits import NotDone
from leveret.node.control.changes import Outcome
from leveret.node.control.users import PermissionSeen, UserSeen
from leveret.node.control.virtual_hosts import VirtualHostSeen
from tests.cluster.conftest import Cluster, NodeMaker
from tests.cluster.test_operating import data_of
from tests.support.nodes import LeveretProcess

WITHIN_S = 30.0
EVERYTHING = {"configure": ".*", "write": ".*", "read": ".*"}


def do(member: LeveretProcess, verb: str, **arguments: object) -> str:
    return ask_once(data_of(member), verb, Outcome, **arguments).outcome


def parameters(
    member: LeveretProcess, user: str, password: str, vhost: str = "/"
) -> pika.ConnectionParameters:
    return pika.ConnectionParameters(
        "127.0.0.1",
        member.ports[0],
        vhost,
        credentials=pika.PlainCredentials(user, password),
        blocked_connection_timeout=WITHIN_S,
    )


@contextlib.contextmanager
def client(
    member: LeveretProcess, user: str, password: str, vhost: str = "/"
) -> Iterator[BlockingChannel]:
    """Log in, as soon as the node has heard of the user: another one was told of it."""
    deadline_s = time.monotonic() + WITHIN_S
    while True:
        try:
            connection = pika.BlockingConnection(parameters(member, user, password, vhost))
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


def is_let_in(member: LeveretProcess, user: str, password: str) -> bool:
    try:
        pika.BlockingConnection(parameters(member, user, password)).close()
    except pika.exceptions.AMQPError:
        return False
    return True


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_a_user_that_one_node_was_told_of_logs_in_at_all(cluster: Cluster) -> None:
    assert "created" == do(cluster[0], "add_user", user="ada", password="analytical")
    do(cluster[1], "set_permissions", user="ada", vhost="/", **EVERYTHING)
    do(cluster[2], "set_user_tags", user="ada", tags=["monitoring"])

    for member in cluster.members:
        with client(member, "ada", "analytical") as channel:
            channel.queue_declare("", exclusive=True)
        assert UserSeen(user="ada", tags=["monitoring"]) in ask_once(
            data_of(member), "list_users", list[UserSeen]
        )
        assert [PermissionSeen(user="ada", vhost="/", **EVERYTHING)] == ask_once(
            data_of(member), "list_user_permissions", list[PermissionSeen], user="ada"
        )
    ask_once(data_of(cluster[0]), "authenticate_user", object, user="ada", password="analytical")


def test_another_password_counts_for_the_next_login_on_all_nodes(cluster: Cluster) -> None:
    do(cluster[0], "add_user", user="changing", password="before")
    do(cluster[0], "set_permissions", user="changing", vhost="/", **EVERYTHING)
    with client(cluster[1], "changing", "before") as channel:
        do(cluster[0], "change_password", user="changing", password="after")

        wait_until(lambda: not is_let_in(cluster[1], "changing", "before"))
        with client(cluster[2], "changing", "after"):
            channel.queue_declare("", exclusive=True)  # who is in stays
    with pytest.raises(NotDone, match="another password"):
        do(cluster[2], "authenticate_user", user="changing", password="before")


def test_an_open_channel_heeds_a_changed_permission(cluster: Cluster) -> None:
    do(cluster[0], "add_user", user="till", password="pw")
    do(cluster[0], "set_permissions", user="till", vhost="/", **EVERYTHING)
    with client(cluster[1], "till", "pw") as channel:
        channel.exchange_declare("sales", "fanout", durable=True)
        channel.confirm_delivery()
        channel.basic_publish("sales", "", b"allowed")

        do(cluster[0], "set_permissions", user="till", vhost="/", configure="", write="", read="")

        def publish_until_refused() -> None:
            deadline_s = time.monotonic() + WITHIN_S
            while time.monotonic() < deadline_s:
                channel.basic_publish("sales", "", b"not allowed")

        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as closed:
            publish_until_refused()
        assert (
            "ACCESS_REFUSED - access to exchange 'sales' in vhost '/' refused for user 'till'"
            == closed.value.reply_text
        )


def test_a_deleted_users_connections_are_closed_on_all_nodes(cluster: Cluster) -> None:
    do(cluster[0], "add_user", user="leaver", password="pw")
    do(cluster[0], "set_permissions", user="leaver", vhost="/", **EVERYTHING)
    with client(cluster[0], "leaver", "pw") as one, client(cluster[1], "leaver", "pw") as two:
        do(cluster[2], "delete_user", user="leaver")

        for channel in (one, two):
            with pytest.raises(pika.exceptions.ConnectionClosedByBroker) as closed:
                channel.connection.process_data_events(time_limit=WITHIN_S)
            assert (320, "CONNECTION_FORCED - user 'leaver' is deleted") == (
                closed.value.reply_code,
                closed.value.reply_text,
            )
    with pytest.raises(NotDone, match='user "leaver" does not exist'):
        do(cluster[1], "delete_user", user="leaver")


def test_a_deleted_virtual_host_goes_with_its_connections_and_its_messages(
    cluster: Cluster,
) -> None:
    assert "created" == do(cluster[0], "add_vhost", vhost="shop")
    assert "exists" == do(cluster[1], "add_vhost", vhost="shop")
    do(cluster[1], "set_permissions", user="guest", vhost="shop", **EVERYTHING)
    with client(cluster[2], "guest", "guest", "shop") as channel:
        channel.queue_declare("orders", durable=True)
        channel.confirm_delivery()
        channel.basic_publish("", "orders", b"one")
        assert VirtualHostSeen(name="shop", exchanges=7, queues=1) in ask_once(
            data_of(cluster[0]), "list_vhosts", list[VirtualHostSeen]
        )

        do(cluster[0], "delete_vhost", vhost="shop")

        with pytest.raises(pika.exceptions.ConnectionClosedByBroker) as closed:
            channel.connection.process_data_events(time_limit=WITHIN_S)
        assert (320, "CONNECTION_FORCED - vhost 'shop' is deleted") == (
            closed.value.reply_code,
            closed.value.reply_text,
        )

    do(cluster[0], "add_vhost", vhost="shop")
    do(cluster[0], "set_permissions", user="guest", vhost="shop", **EVERYTHING)
    with client(cluster[0], "guest", "guest", "shop") as channel:
        assert 0 == channel.queue_declare("orders", durable=True).method.message_count


def test_users_and_permissions_are_there_after_a_restart(make_node: NodeMaker) -> None:
    node = make_node()
    node.start()
    do(node, "add_user", user="ada", password="analytical")
    do(node, "add_vhost", vhost="shop")
    do(node, "set_permissions", user="ada", vhost="shop", **EVERYTHING)
    do(node, "delete_user", user="guest")

    node.kill()
    node.start()

    with client(node, "ada", "analytical", "shop") as channel:
        channel.queue_declare("", exclusive=True)
    assert not is_let_in(node, "guest", "guest")


@pytest.mark.parametrize(
    ("verb", "arguments", "text"),
    [
        ("add_user", {"user": "guest", "password": "pw"}, 'user "guest" already exists'),
        ("add_user", {"user": "ada", "password": ""}, "an empty password lets nobody in"),
        ("add_user", {"user": "", "password": "pw"}, "a user needs a name"),
        ("add_user", {"user": "a" * 256, "password": "pw"}, "too long"),
        ("change_password", {"user": "nobody", "password": "pw"}, 'user "nobody" does not exist'),
        ("set_user_tags", {"user": "nobody", "tags": []}, 'user "nobody" does not exist'),
        ("add_vhost", {"vhost": ""}, "a virtual host needs a name"),
        ("delete_vhost", {"vhost": "nowhere"}, 'virtual host "nowhere" does not exist'),
        ("list_permissions", {"vhost": "nowhere"}, 'virtual host "nowhere" does not exist'),
        ("list_user_permissions", {"user": "nobody"}, 'user "nobody" does not exist'),
        ("clear_permissions", {"user": "nobody", "vhost": "/"}, 'user "nobody" does not exist'),
        (
            "set_permissions",
            {"user": "guest", "vhost": "nowhere", **EVERYTHING},
            'virtual host "nowhere" does not exist',
        ),
        (
            "set_permissions",
            {"user": "guest", "vhost": "/", **EVERYTHING, "write": "a["},
            "not a regular expression: 'a\\['",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason(
    verb: str, arguments: dict[str, object], text: str, cluster: Cluster
) -> None:
    with pytest.raises(NotDone, match=text):
        do(cluster[1], verb, **arguments)
