"""Limits and metadata of virtual hosts, in a cluster."""

from __future__ import annotations

import contextlib

import pika
import pytest

from leveret.cli.ask import ask_once
from leveret.cli.exits import NotDone
from leveret.node.control.limits import UserLimitsSeen, VirtualHostLimitsSeen
from leveret.node.control.virtual_hosts import VirtualHostSeen
from tests.cluster.conftest import Cluster
from tests.cluster.test_operating import data_of
from tests.cluster.test_users import EVERYTHING, client, do, parameters, wait_until


def is_refused(cluster: Cluster, member: int, user: str, vhost: str) -> bool:
    try:
        pika.BlockingConnection(parameters(cluster[member], user, "pw", vhost)).close()
    except pika.exceptions.ProbableAccessDeniedError as error:
        assert "limit (2) is reached" in str(error)  # noqa: PT017
        return True
    return False


def test_connections_are_counted_over_all_nodes(cluster: Cluster) -> None:
    do(cluster[0], "add_vhost", vhost="counted")
    do(cluster[0], "add_user", user="many", password="pw")
    do(cluster[0], "set_permissions", user="many", vhost="counted", **EVERYTHING)
    with client(cluster[0], "many", "pw", "counted"):
        # One was there before the limit, one comes after it.
        do(cluster[1], "set_vhost_limits", vhost="counted", limits={"max-connections": 2})
        with client(cluster[1], "many", "pw", "counted"):
            wait_until(lambda: is_refused(cluster, 2, "many", "counted"))
        wait_until(lambda: not is_refused(cluster, 2, "many", "counted"))
    assert [VirtualHostLimitsSeen(vhost="counted", limits={"max-connections": 2})] == ask_once(
        data_of(cluster[2]), "list_vhost_limits", list[VirtualHostLimitsSeen], vhost="counted"
    )


def test_channels_of_a_user_are_counted_over_all_nodes(cluster: Cluster) -> None:
    do(cluster[0], "add_user", user="wide", password="pw")
    do(cluster[0], "set_permissions", user="wide", vhost="/", **EVERYTHING)
    do(cluster[0], "set_user_limits", user="wide", limits={"max-channels": 2})

    def is_refused_a_channel() -> bool:
        connection = pika.BlockingConnection(parameters(cluster[2], "wide", "pw"))
        with contextlib.closing(connection):
            try:
                connection.channel()
            except pika.exceptions.ConnectionClosedByBroker as error:
                assert error.reply_code == 530  # noqa: PT017
                connection.close = lambda: None  # the broker has closed it
                return True
        return False

    with client(cluster[0], "wide", "pw"), client(cluster[1], "wide", "pw"):
        wait_until(is_refused_a_channel)
    wait_until(lambda: not is_refused_a_channel())
    assert [UserLimitsSeen(user="wide", limits={"max-channels": 2})] == ask_once(
        data_of(cluster[1]), "list_user_limits", list[UserLimitsSeen], user="wide"
    )


def test_queues_get_the_type_of_their_virtual_host(cluster: Cluster) -> None:
    do(cluster[0], "add_vhost", vhost="typed", default_queue_type="quorum", tags=["eu"])
    do(cluster[0], "set_permissions", user="guest", vhost="typed", **EVERYTHING)
    with client(cluster[1], "guest", "guest", "typed") as channel:
        channel.queue_declare("plain", durable=True)
        channel.queue_declare("plain", durable=True)
        channel.queue_declare("plain", durable=True, arguments={"x-queue-type": "quorum"})
        channel.queue_declare("", exclusive=True)  # can be of no such type

        do(cluster[2], "update_vhost_metadata", vhost="typed", default_queue_type="classic")
        channel.queue_declare("plain", durable=True)  # still means the one that is there
        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as caught:
            channel.queue_declare("plain", durable=True, arguments={"x-queue-type": "classic"})

    assert caught.value.reply_code == 406
    assert "inequivalent arg 'x-queue-type'" in caught.value.reply_text
    seen = {
        one.name: one for one in ask_once(data_of(cluster[0]), "list_vhosts", list[VirtualHostSeen])
    }
    assert (["eu"], "classic") == (seen["typed"].tags, seen["typed"].default_queue_type)


def test_a_protected_virtual_host_is_not_deleted(cluster: Cluster) -> None:
    do(cluster[0], "add_vhost", vhost="precious", description="orders")
    do(cluster[0], "enable_vhost_deletion_protection", vhost="precious")

    with pytest.raises(NotDone, match="protected from deletion"):
        do(cluster[1], "delete_vhost", vhost="precious")

    do(cluster[1], "disable_vhost_deletion_protection", vhost="precious")
    assert "deleted" == do(cluster[1], "delete_vhost", vhost="precious")
