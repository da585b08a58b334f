"""Limits of virtual hosts and users."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator

import pika
import pytest

from tests.conformance.conftest import Broker

Connect = Callable[[], pika.BlockingConnection]

WITHIN_S = 30.0


@pytest.fixture
def vhost(broker: Broker, user: str) -> Iterator[str]:
    """A virtual host that the user may do everything in."""
    made = f"t-{uuid.uuid4().hex[:12]}"
    broker.ctl("add_vhost", made)
    broker.ctl("set_permissions", "-p", made, user, ".*", ".*", ".*")
    yield made
    broker.ctl("delete_vhost", made)


@pytest.fixture
def enter(broker: Broker, user: str, vhost: str) -> Iterator[Connect]:
    """Connects the user to the virtual host."""
    opened: list[pika.BlockingConnection] = []

    def connect() -> pika.BlockingConnection:
        opened.append(
            broker.connect(virtual_host=vhost, credentials=pika.PlainCredentials(user, user))
        )
        return opened[-1]

    yield connect
    for connection in opened:
        if connection.is_open:
            connection.close()


def text_of_refusal(enter: Connect) -> str:
    with pytest.raises(pika.exceptions.ProbableAccessDeniedError) as caught:
        enter()
    return str(caught.value)


def enter_in_time(enter: Connect) -> pika.BlockingConnection:
    """Connect as soon as the broker has counted what was closed."""
    deadline_s = time.monotonic() + WITHIN_S
    while True:
        try:
            return enter()
        except pika.exceptions.ProbableAccessDeniedError:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)


def test_a_virtual_host_has_no_more_connections_than_it_may(
    broker: Broker, user: str, vhost: str, enter: Connect
) -> None:
    """security: limits."""
    broker.ctl("set_vhost_limits", "-p", vhost, '{"max-connections": 1}')
    first = enter()

    assert (
        f"access to vhost '{vhost}' refused for user '{user}': connection limit (1) is reached"
    ) in text_of_refusal(enter).replace("\\'", "'")
    first.close()
    enter_in_time(enter)
    broker.ctl("clear_vhost_limits", "-p", vhost)
    enter()


def test_a_virtual_host_with_the_limit_zero_lets_nobody_in(
    broker: Broker, vhost: str, enter: Connect
) -> None:
    """security: limits."""
    broker.ctl("set_vhost_limits", "-p", vhost, '{"max-connections": 0}')
    assert "connection limit (0) is reached" in text_of_refusal(enter)

    broker.ctl("set_vhost_limits", "-p", vhost, '{"max-connections": -1}')
    enter()


def test_a_virtual_host_has_no_more_queues_than_it_may(
    broker: Broker, vhost: str, enter: Connect
) -> None:
    """security: limits."""
    broker.ctl("set_vhost_limits", "-p", vhost, '{"max-queues": 1}')
    connection = enter()
    channel = connection.channel()
    channel.queue_declare("one")
    channel.queue_declare("one")

    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as caught:
        channel.queue_declare("two", exclusive=True)

    text = f"cannot declare queue 'two': queue limit in vhost '{vhost}' (1) is reached"
    assert caught.value.reply_code == 406
    assert caught.value.reply_text == f"PRECONDITION_FAILED - {text}"
    channel = connection.channel()
    channel.queue_delete("one")
    channel.queue_declare("two", exclusive=True)


def test_a_user_has_no_more_connections_than_it_may(
    broker: Broker, user: str, enter: Connect
) -> None:
    """security: limits."""
    broker.ctl("set_user_limits", user, '{"max-connections": 1}')
    first = enter()

    assert (
        f"connection refused for user '{user}': user connection limit (1) is reached"
    ) in text_of_refusal(enter).replace("\\'", "'")
    first.close()
    enter_in_time(enter)


def test_a_user_has_no_more_channels_than_it_may(broker: Broker, user: str, enter: Connect) -> None:
    """security: limits."""
    broker.ctl("set_user_limits", user, '{"max-channels": 2}')
    broker.ctl("set_user_limits", user, '{"max-connections": 5}')
    one, other = enter(), enter()
    first = one.channel()
    other.channel()

    with pytest.raises(pika.exceptions.ConnectionClosedByBroker) as caught:
        other.channel()

    text = f"number of channels opened for user '{user}' has reached the maximum allowed user limit"
    assert caught.value.reply_code == 530
    assert caught.value.reply_text == f"NOT_ALLOWED - {text} of (2)"
    first.close()
    one.channel()
    broker.ctl("clear_user_limits", user, "max-channels")
    for _ in range(3):
        one.channel()
