"""Exchanges and bindings: which queue gets which message, and how often."""

from __future__ import annotations

from collections.abc import Callable

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

Names = Callable[[], str]


def drain(channel: BlockingChannel, queue: str) -> list[str]:
    """The routing keys of the messages in the queue, in their order; takes them out."""
    keys = []
    while (got := channel.basic_get(queue, auto_ack=True))[0] is not None:
        keys.append(got[0].routing_key)
    return keys


def bound(
    channel: BlockingChannel,
    queue: str,
    exchange: str,
    key: str = "",
    arguments: dict[str, object] | None = None,
) -> str:
    """Declare a queue if need be and bind it; return its name."""
    channel.queue_declare(queue)
    channel.queue_bind(queue, exchange, key, arguments)
    return queue


@pytest.fixture
def exchange(channel: BlockingChannel, name: Names, request: pytest.FixtureRequest) -> str:
    """A new exchange, of the type that `of_type` says."""
    made = name()
    channel.exchange_declare(made, request.param)
    return made


def of_type(kind: str) -> pytest.MarkDecorator:
    """Gives the test an `exchange` of this type."""
    return pytest.mark.parametrize("exchange", [kind], indirect=True)


def test_default_exchange_reaches_every_queue_by_its_name(
    channel: BlockingChannel, queue: str
) -> None:
    """exchanges: default exchange."""
    channel.basic_publish("", queue, b"")
    channel.basic_publish("", queue + ".x", b"")

    assert drain(channel, queue) == [queue]


@of_type("direct")
def test_direct_compares_the_whole_key(
    channel: BlockingChannel, name: Names, exchange: str
) -> None:
    """exchanges: direct."""
    first, second = name(), name()
    bound(channel, first, exchange, "a.b")
    bound(channel, second, exchange, "a.b")
    bound(channel, second, exchange, "#")
    for key in ("a.b", "a", "A.B", "a.b ", "#", ""):
        channel.basic_publish(exchange, key, b"")

    assert drain(channel, first) == ["a.b"]
    assert drain(channel, second) == ["a.b", "#"]


@of_type("fanout")
def test_fanout_ignores_the_key_and_gives_one_copy(
    channel: BlockingChannel, name: Names, exchange: str
) -> None:
    """exchanges: fanout."""
    queue = bound(channel, name(), exchange, "one")
    bound(channel, queue, exchange, "two")
    channel.basic_publish(exchange, "three", b"")

    assert drain(channel, queue) == ["three"]


TOPIC_EDGES = [
    ("#", "", True),
    ("#", "a", True),
    ("#", "a.b.c", True),
    ("*", "", False),
    ("*", "a", True),
    ("*", "a.b", False),
    ("", "", True),
    ("", "a", False),
    ("a.#", "a", True),
    ("a.#", "a.b.c", True),
    ("a.#", "ab", False),
    ("a.*", "a.", True),
    ("a.*", "a", False),
    ("*.b", ".b", True),
    ("#.b", "b", True),
    ("#.b", "a.b", True),
    ("#.b", "a.b.c", False),
    ("a.#.b", "a.b", True),
    ("a.#.b", "a.x.y.b", True),
    ("a.#.b", "a.x.b.y", False),
    ("a.*.b", "a.b", False),
    ("a.*.b", "a..b", True),
    ("#.#", "x", True),
    ("#.#", "", True),
    ("*.#", "", False),
    ("*.#", "x", True),
    ("#.*", "x.y", True),
    ("#.*.#", "x", True),
    ("*.*", ".", True),
    ("a..b", "a..b", True),
    ("a..b", "a.b", False),
    ("a*", "ab", False),
    ("a*", "a*", True),
    ("a.#.#.b", "a.b", True),
    ("#.a.#.a.#", "a.x.a", True),
    ("#.a.#.a.#", "a", False),
    ("A.b", "a.b", False),
    ("ä.*", "ä.ö", True),
]


@of_type("topic")
@pytest.mark.parametrize(("pattern", "key", "fits"), TOPIC_EDGES)
def test_topic_edge(
    channel: BlockingChannel, name: Names, exchange: str, pattern: str, key: str, fits: bool
) -> None:
    """exchanges: topic."""
    queue = bound(channel, name(), exchange, pattern)
    channel.basic_publish(exchange, key, b"")

    assert drain(channel, queue) == ([key] if fits else [])


@of_type("topic")
def test_topic_gives_one_copy_and_forgets_unbound_patterns(
    channel: BlockingChannel, name: Names, exchange: str
) -> None:
    """exchanges: topic, bind / unbind."""
    queue = bound(channel, name(), exchange, "a.*")
    bound(channel, queue, exchange, "a.#")
    bound(channel, queue, exchange, "*.b")
    channel.basic_publish(exchange, "a.b", b"")
    channel.queue_unbind(queue, exchange, "a.#")
    channel.basic_publish(exchange, "a.b.c", b"")
    channel.basic_publish(exchange, "a.c", b"")
    channel.queue_unbind(queue, exchange, "a.*")
    channel.basic_publish(exchange, "a.c", b"")

    assert drain(channel, queue) == ["a.b", "a.c"]


HEADERS_CASES = [
    ({"a": 1, "b": 2}, {"a": 1, "b": 2, "c": 3}, True),
    ({"a": 1, "b": 2}, {"a": 1}, False),
    ({"x-match": "all", "a": 1}, {"a": 2}, False),
    ({"x-match": "any", "a": 1, "b": 2}, {"b": 2}, True),
    ({"x-match": "any", "a": 1, "b": 2}, {"a": 2, "b": 1}, False),
    ({"x-match": "any"}, {"a": 1}, False),
    ({}, {"a": 1}, True),
    ({}, None, True),
    ({"x-match": "all"}, {}, True),
    ({"a": None}, {"a": "anything"}, True),
    ({"a": None}, {"b": 1}, False),
    ({"a": "1"}, {"a": 1}, False),
    ({"a": True}, {"a": True}, True),
    ({"a": "x"}, {"A": "x"}, False),
    ({"x-match": "all", "x-foo": 1, "a": 1}, {"a": 1}, True),
    ({"x-match": "any", "x-foo": 1}, {"x-foo": 1}, False),
    ({"x-match": "all-with-x", "x-foo": 1, "a": 1}, {"a": 1}, False),
    ({"x-match": "all-with-x", "x-foo": 1}, {"x-foo": 1}, True),
    ({"x-match": "any-with-x", "x-foo": 1, "a": 1}, {"x-foo": 1}, True),
]


@of_type("headers")
@pytest.mark.parametrize(("binding", "headers", "fits"), HEADERS_CASES)
def test_headers_case(
    channel: BlockingChannel,
    name: Names,
    exchange: str,
    binding: dict[str, object],
    headers: dict[str, object] | None,
    fits: bool,
) -> None:
    """exchanges: headers."""
    queue = bound(channel, name(), exchange, "ignored", binding)
    channel.basic_publish(exchange, "k", b"", pika.BasicProperties(headers=headers))

    assert drain(channel, queue) == (["k"] if fits else [])


def test_pre_declared_exchanges_route(channel: BlockingChannel, name: Names) -> None:
    """exchanges: pre-declared."""
    queue = name()
    for exchange in ("amq.direct", "amq.fanout", "amq.topic"):
        bound(channel, queue, exchange, queue)
        channel.basic_publish(exchange, queue, b"")
    for exchange in ("amq.headers", "amq.match"):
        bound(channel, queue, exchange, "", {"q": queue})
        channel.basic_publish(exchange, queue, b"", pika.BasicProperties(headers={"q": queue}))

    assert drain(channel, queue) == [queue] * 5


@of_type("direct")
def test_binding_twice_is_binding_once(
    channel: BlockingChannel, name: Names, exchange: str
) -> None:
    """exchanges: bind / unbind."""
    queue = bound(channel, name(), exchange, "k")
    bound(channel, queue, exchange, "k")
    channel.basic_publish(exchange, "k", b"")
    assert drain(channel, queue) == ["k"]

    channel.queue_unbind(queue, exchange, "k")
    channel.basic_publish(exchange, "k", b"")

    assert drain(channel, queue) == []


@of_type("direct")
def test_arguments_are_part_of_a_bindings_identity(
    channel: BlockingChannel, name: Names, exchange: str
) -> None:
    """exchanges: bind / unbind, identity = (src, dst, key, args)."""
    queue = bound(channel, name(), exchange, "k", {"a": 1})
    bound(channel, queue, exchange, "k", {"a": 2})
    channel.queue_unbind(queue, exchange, "k")
    channel.queue_unbind(queue, exchange, "k", {"a": 1})
    channel.basic_publish(exchange, "k", b"")
    assert drain(channel, queue) == ["k"]

    channel.queue_unbind(queue, exchange, "k", {"a": 2})
    channel.basic_publish(exchange, "k", b"")

    assert drain(channel, queue) == []


@of_type("fanout")
def test_exchange_to_exchange_gives_one_copy_through_paths_and_cycles(
    channel: BlockingChannel, name: Names, exchange: str
) -> None:
    """exchanges: exchange-to-exchange."""
    left, right, queue = name(), name(), name()
    channel.exchange_declare(left, "topic")
    channel.exchange_declare(right, "direct")
    channel.exchange_bind(left, exchange)
    channel.exchange_bind(right, exchange)
    channel.exchange_bind(exchange, left, "a.#")
    bound(channel, queue, left, "a.*")
    bound(channel, queue, right, "a.b")
    channel.basic_publish(exchange, "a.b", b"x")

    method, _, body = channel.basic_get(queue, auto_ack=True)

    assert (method.exchange, method.routing_key, body) == (exchange, "a.b", b"x")
    assert drain(channel, queue) == []


@of_type("fanout")
def test_exchange_unbind_ends_the_way(channel: BlockingChannel, name: Names, exchange: str) -> None:
    """exchanges: exchange-to-exchange."""
    target, queue = name(), name()
    channel.exchange_declare(target, "fanout")
    channel.exchange_bind(target, exchange, "k")
    bound(channel, queue, target)
    channel.basic_publish(exchange, "1", b"")
    channel.exchange_unbind(target, exchange, "k")
    channel.basic_publish(exchange, "2", b"")

    assert drain(channel, queue) == ["1"]


def test_internal_exchange_gets_messages_from_others(channel: BlockingChannel, name: Names) -> None:
    """exchanges: durable / auto-delete / internal."""
    outer, inner, queue = name(), name(), name()
    channel.exchange_declare(outer, "fanout")
    channel.exchange_declare(inner, "fanout", internal=True)
    channel.exchange_bind(inner, outer)
    bound(channel, queue, inner)
    channel.basic_publish(outer, "k", b"")

    assert drain(channel, queue) == ["k"]


def exists(connection: pika.BlockingConnection, exchange: str) -> bool:
    try:
        connection.channel().exchange_declare(exchange, passive=True)
    except pika.exceptions.ChannelClosedByBroker as error:
        if error.reply_code != 404:
            raise
        return False
    return True


@pytest.mark.parametrize("how", ["unbind", "queue delete"])
def test_auto_delete_exchange_goes_with_its_last_binding(
    connection: pika.BlockingConnection, channel: BlockingChannel, name: Names, how: str
) -> None:
    """exchanges: durable / auto-delete / internal."""
    exchange, first, second = name(), name(), name()
    channel.exchange_declare(exchange, "direct", auto_delete=True)
    assert exists(connection, exchange)
    bound(channel, first, exchange, "k")
    bound(channel, second, exchange, "k")
    channel.queue_delete(first)
    assert exists(connection, exchange)

    if how == "unbind":
        channel.queue_unbind(second, exchange, "k")
    else:
        channel.queue_delete(second)

    assert not exists(connection, exchange)


def test_auto_delete_cascades_through_exchange_bindings(
    connection: pika.BlockingConnection, channel: BlockingChannel, name: Names
) -> None:
    """exchanges: auto-delete, exchange-to-exchange (pitfall 19)."""
    first, second, queue = name(), name(), name()
    channel.exchange_declare(first, "fanout", auto_delete=True)
    channel.exchange_declare(second, "fanout", auto_delete=True)
    channel.exchange_bind(second, first)
    bound(channel, queue, second)

    channel.queue_delete(queue)

    assert not exists(connection, second)
    assert not exists(connection, first)


def test_deleting_an_exchange_ends_its_bindings(channel: BlockingChannel, name: Names) -> None:
    """exchanges: delete."""
    exchange, queue = name(), name()
    channel.exchange_declare(exchange, "direct")
    bound(channel, queue, exchange, "k")
    channel.exchange_delete(exchange)
    channel.exchange_declare(exchange, "direct")
    channel.basic_publish(exchange, "k", b"")

    assert drain(channel, queue) == []


def test_if_unused_deletes_an_exchange_without_bindings(
    connection: pika.BlockingConnection, channel: BlockingChannel, name: Names
) -> None:
    """exchanges: delete, if-unused."""
    exchange, target = name(), name()
    channel.exchange_declare(exchange, "direct")
    channel.exchange_declare(target, "direct")
    channel.exchange_bind(target, exchange, "k")

    # Bindings to an exchange are not use of it; those from it are.
    channel.exchange_delete(target, if_unused=True)
    channel.exchange_delete(exchange, if_unused=True)

    assert not exists(connection, target)
    assert not exists(connection, exchange)


def test_passive_declare_needs_no_matching_type(channel: BlockingChannel, name: Names) -> None:
    """exchanges: passive declare."""
    exchange = name()
    channel.exchange_declare(exchange, "topic", durable=True)

    channel.exchange_declare(exchange, "fanout", passive=True)
