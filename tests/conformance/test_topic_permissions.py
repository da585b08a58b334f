"""Topic permissions: which routing keys a user may use with a topic exchange."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests.conformance.conftest import Broker

Connect = Callable[..., pika.BlockingConnection]


@pytest.fixture
def channel(user: str, connect: Connect) -> BlockingChannel:
    """A channel of the user."""
    return connect(credentials=pika.PlainCredentials(user, user)).channel()


@pytest.fixture
def topics(broker: Broker, channel: BlockingChannel, name: Callable[[], str]) -> str:
    """A topic exchange."""
    made = name()
    channel.exchange_declare(made, "topic", durable=True)
    return made


@pytest.fixture
def permit(broker: Broker, user: str, topics: str) -> Iterator[Callable[[str, str], None]]:
    """Sets what the user may write and read."""

    def set_permissions(write: str, read: str) -> None:
        broker.ctl("set_topic_permissions", "-p", broker.vhost, user, topics, write, read)

    yield set_permissions
    broker.ctl("clear_topic_permissions", "-p", broker.vhost, user)


def refusal(channel: BlockingChannel, act: Callable[[], object]) -> tuple[int, str]:
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as caught:
        act()
        channel.queue_declare("", exclusive=True)  # a publish is refused behind its return
    return caught.value.reply_code, caught.value.reply_text


def refused(user: str, vhost: str, exchange: str, key: str) -> tuple[int, str]:
    text = f"access to topic '{key}' in exchange '{exchange}' in vhost '{vhost}'"
    return 403, f"ACCESS_REFUSED - {text} refused for user '{user}'"


def test_a_publish_with_a_key_that_is_not_allowed_is_refused(
    broker: Broker,
    channel: BlockingChannel,
    user: str,
    topics: str,
    permit: Callable[[str, str], None],
) -> None:
    """security: topic permissions."""
    permit("^a[.]", "")
    channel.confirm_delivery()

    channel.basic_publish(topics, "a.1", b"")

    assert refused(user, broker.vhost, topics, "zz.1") == refusal(
        channel, lambda: channel.basic_publish(topics, "zz.1", b"")
    )


def test_a_binding_with_a_key_that_is_not_allowed_is_refused(
    broker: Broker,
    channel: BlockingChannel,
    user: str,
    topics: str,
    permit: Callable[[str, str], None],
) -> None:
    """security: topic permissions."""
    permit(".*", "^a[.]")
    queue = channel.queue_declare("", exclusive=True).method.queue

    channel.queue_bind(queue, topics, "a.*")

    assert refused(user, broker.vhost, topics, "x.y") == refusal(
        channel, lambda: channel.queue_bind(queue, topics, "x.y")
    )


def test_binding_an_exchange_is_checked_by_the_source(
    broker: Broker,
    channel: BlockingChannel,
    user: str,
    topics: str,
    permit: Callable[[str, str], None],
) -> None:
    """security: topic permissions."""
    permit(".*", "^a[.]")

    channel.exchange_bind("amq.fanout", topics, "a.*")

    assert refused(user, broker.vhost, topics, "b") == refusal(
        channel, lambda: channel.exchange_bind("amq.fanout", topics, "b")
    )


def test_names_stand_for_the_user_and_the_virtual_host(
    broker: Broker,
    channel: BlockingChannel,
    user: str,
    topics: str,
    permit: Callable[[str, str], None],
) -> None:
    """security: topic permissions."""
    permit("^{vhost}[.]{username}$", "")
    channel.confirm_delivery()

    channel.basic_publish(topics, f"{broker.vhost}.{user}", b"")

    assert refused(user, broker.vhost, topics, f"{broker.vhost}.other") == refusal(
        channel, lambda: channel.basic_publish(topics, f"{broker.vhost}.other", b"")
    )


def test_an_open_channel_heeds_a_changed_permission_for_a_key_that_it_used(
    broker: Broker,
    channel: BlockingChannel,
    user: str,
    topics: str,
    permit: Callable[[str, str], None],
) -> None:
    """security: topic permissions."""
    channel.confirm_delivery()
    channel.basic_publish(topics, "b", b"")  # without a permission all keys are allowed

    permit("^a", "")

    assert refused(user, broker.vhost, topics, "b") == refusal(
        channel, lambda: channel.basic_publish(topics, "b", b"")
    )


def test_other_exchanges_and_cleared_ones_take_every_key(
    broker: Broker,
    channel: BlockingChannel,
    user: str,
    topics: str,
    permit: Callable[[str, str], None],
    name: Callable[[], str],
) -> None:
    """security: topic permissions."""
    permit("", "")
    fanout = name()
    channel.exchange_declare(fanout, "fanout")
    broker.ctl("set_topic_permissions", "-p", broker.vhost, user, fanout, "", "")
    assert [user, topics, "", ""] in broker.ctl("list_topic_permissions", "-p", broker.vhost)
    channel.confirm_delivery()

    channel.basic_publish(fanout, "x", b"")
    broker.ctl("clear_topic_permissions", "-p", broker.vhost, user, topics)
    channel.basic_publish(topics, "x", b"")

    listed = broker.ctl("list_user_topic_permissions", user)
    assert [broker.vhost, fanout, "", ""] in listed
    assert [broker.vhost, topics, "", ""] not in listed
