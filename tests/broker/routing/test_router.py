"""From exchange and key to queues, while the catalog changes."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leveret.broker.routing.router import MEMO_WEIGHT_MAX, Router, Routers
from leveret.catalog import commands as c
from leveret.catalog.machine import CatalogMachine
from leveret.catalog.model import DestinationKind, Exchange, PasswordHash


def decode(encoded: bytes) -> Mapping[str, object]:
    """Read arguments, which these tests write as JSON."""
    try:
        return dict(json.loads(encoded))
    except ValueError:
        return {}


def alternate(exchange: Exchange) -> str | None:
    name = decode(exchange.arguments).get("alternate-exchange")
    return name if isinstance(name, str) else None


class World:
    """A catalog and the routers that follow it."""

    def __init__(self) -> None:
        self.machine = CatalogMachine()
        self.routers = Routers(self.machine.model, decode=decode, alternate=alternate)
        self.do(c.Bootstrap("lab", 1, "guest", PasswordHash("sha256", b"", b"")))
        self.do(c.RegisterNode(1, "n", (), 1))

    def do(self, command: c.AnyCommand) -> None:
        reply = self.machine.apply(1, 0, c.encode(command), 0)
        assert isinstance(reply, c.Done), reply
        self.follow()

    def follow(self) -> None:
        for event in self.machine.take_events():
            self.routers.apply(event)

    def exchange(self, name: str, kind: str, **arguments: object) -> None:
        encoded = json.dumps(arguments).encode()
        self.do(c.DeclareExchange("/", name, kind, True, False, False, encoded))

    def queue(self, name: str) -> None:
        self.do(c.DeclareQueue("/", name, True, False, False, b"", 1, 1, 0))

    def delete_queue(self, name: str) -> None:
        queue = self.machine.model.queue("/", name)
        assert queue is not None
        self.do(c.DeleteQueue("/", name, queue.uid))

    def bind(
        self,
        source: str,
        destination: str,
        key: str = "",
        kind: DestinationKind = "queue",
        **arguments: object,
    ) -> None:
        encoded = json.dumps(arguments).encode()
        self.do(c.Bind("/", source, kind, destination, key, encoded))

    def unbind(
        self, source: str, destination: str, key: str = "", kind: DestinationKind = "queue"
    ) -> None:
        self.do(c.Unbind("/", source, kind, destination, key, b"{}"))

    def router(self, exchange: str) -> Router:
        router = self.routers.router("/", exchange)
        assert router is not None
        return router

    def route(self, exchange: str, key: str = "", headers: object = None) -> list[str]:
        view = headers if isinstance(headers, dict) else {}
        queues = self.router(exchange).route(key, lambda: view)
        assert all(self.machine.model.queue_by_uid(queue.uid) is queue for queue in queues)
        return [queue.name for queue in queues]


@pytest.fixture
def world() -> World:
    world = World()
    for name in ("q1", "q2", "q3"):
        world.queue(name)
    return world


def test_there_is_no_router_for_a_missing_exchange(world: World) -> None:
    assert world.routers.router("/", "nope") is None


def test_the_default_exchange_routes_to_the_queue_of_that_name(world: World) -> None:
    assert world.route("", "q1") == ["q1"]
    assert world.route("", "later") == []
    world.queue("later")
    assert world.route("", "later") == ["later"]
    world.delete_queue("later")
    assert world.route("", "later") == []


def test_a_direct_exchange_compares_keys(world: World) -> None:
    world.bind("amq.direct", "q1", "a")
    world.bind("amq.direct", "q2", "a")
    world.bind("amq.direct", "q3", "b")

    assert world.route("amq.direct", "a") == ["q1", "q2"]
    assert world.route("amq.direct", "c") == []


def test_a_fanout_exchange_ignores_the_key(world: World) -> None:
    world.bind("amq.fanout", "q1", "a")
    world.bind("amq.fanout", "q2")

    assert world.route("amq.fanout", "z") == ["q1", "q2"]


def test_a_queue_bound_several_times_gets_one_copy(world: World) -> None:
    world.bind("amq.topic", "q1", "a.*")
    world.bind("amq.topic", "q1", "#")
    world.bind("amq.topic", "q1", "a.*", n=2)

    assert world.route("amq.topic", "a.b") == ["q1"]


def test_one_of_two_bindings_with_different_arguments_may_go(world: World) -> None:
    world.bind("amq.direct", "q1", "a")
    world.bind("amq.direct", "q1", "a", n=2)

    world.unbind("amq.direct", "q1", "a")

    assert world.route("amq.direct", "a") == ["q1"]


@pytest.mark.parametrize("exchange", ["amq.direct", "amq.fanout", "amq.topic", "amq.headers"])
def test_a_router_follows_bindings_and_queues(world: World, exchange: str) -> None:
    assert world.route(exchange, "k") == []
    world.bind(exchange, "q1", "k")
    assert world.route(exchange, "k") == ["q1"]
    world.bind(exchange, "q2", "k")
    assert world.route(exchange, "k") == ["q1", "q2"]
    world.unbind(exchange, "q1", "k")
    assert world.route(exchange, "k") == ["q2"]
    world.delete_queue("q2")
    assert world.route(exchange, "k") == []
    world.queue("q2")
    assert world.route(exchange, "k") == []
    world.bind(exchange, "q2", "k")
    assert world.route(exchange, "k") == ["q2"]


def test_each_queue_gets_one_copy_however_many_paths_and_cycles_end(world: World) -> None:
    for name in ("a", "b", "c"):
        world.exchange(name, "fanout")
    world.bind("a", "b", kind="exchange")
    world.bind("a", "c", kind="exchange")
    world.bind("b", "c", kind="exchange")
    world.bind("c", "a", kind="exchange")
    world.bind("b", "q1")
    world.bind("c", "q1")
    world.bind("c", "q2")

    assert sorted(world.route("a")) == ["q1", "q2"]
    assert sorted(world.route("b")) == ["q1", "q2"]


def test_the_key_is_matched_anew_at_each_exchange(world: World) -> None:
    world.exchange("d", "direct")
    world.bind("amq.topic", "d", "a.#", kind="exchange")
    world.bind("d", "q1", "a.b")

    assert world.route("amq.topic", "a.b") == ["q1"]
    assert world.route("amq.topic", "a.c") == []


def test_a_change_downstream_reaches_the_remembered_answers_upstream(world: World) -> None:
    for name in ("a", "b", "c"):
        world.exchange(name, "fanout")
    world.bind("a", "q3")
    world.bind("a", "b", kind="exchange")
    world.bind("b", "c", kind="exchange")
    world.bind("c", "q1")
    assert world.route("a") == ["q3", "q1"]

    world.bind("c", "q2")
    assert world.route("a") == ["q3", "q1", "q2"]
    world.unbind("b", "c", kind="exchange")
    assert world.route("a") == ["q3"]
    world.bind("b", "c", kind="exchange")
    assert world.route("a") == ["q3", "q1", "q2"]
    world.do(c.DeleteExchange("/", "c", False))
    assert world.route("a") == ["q3"]


def test_an_exchange_declared_anew_with_another_type_routes_by_it(world: World) -> None:
    world.exchange("x", "fanout")
    world.bind("x", "q1", "k")
    assert world.route("x", "other") == ["q1"]

    world.do(c.DeleteExchange("/", "x", False))
    world.exchange("x", "direct")
    world.bind("x", "q1", "k")

    assert world.route("x", "other") == []
    assert world.route("x", "k") == ["q1"]


def test_a_headers_exchange_sees_each_message_and_decodes_once(world: World) -> None:
    world.exchange("h", "headers")
    world.bind("amq.headers", "h", kind="exchange")
    world.bind("amq.headers", "q1", colour="red")
    world.bind("h", "q2", colour="blue")
    decoded: list[str] = []

    def headers() -> Mapping[str, object]:
        decoded.append("once")
        return {"colour": "red"}

    world.router("amq.headers").route("", headers)

    assert decoded == ["once"]
    assert world.route("amq.headers", "", {"colour": "red"}) == ["q1"]
    assert world.route("amq.headers", "", {"colour": "blue"}) == ["q2"]
    assert world.route("amq.headers", "", {"colour": "red"}) == ["q1"]


def test_the_headers_are_not_decoded_for_an_exchange_that_ignores_them(world: World) -> None:
    def headers() -> Mapping[str, object]:
        raise AssertionError("decoded")

    world.bind("amq.topic", "q1", "#")

    assert len(world.router("amq.topic").route("a", headers)) == 1


def test_a_router_tells_whether_headers_count_anywhere_on_the_way(world: World) -> None:
    world.exchange("main", "topic", **{"alternate-exchange": "amq.match"})
    assert world.router("main").routes_one_by_one
    assert not world.router("amq.topic").routes_one_by_one

    world.bind("amq.topic", "amq.headers", "#", kind="exchange")
    assert world.router("amq.topic").routes_one_by_one
    world.unbind("amq.topic", "amq.headers", "#", kind="exchange")
    assert not world.router("amq.topic").routes_one_by_one


def test_an_alternate_exchange_gets_what_no_binding_takes(world: World) -> None:
    world.exchange("main", "direct", **{"alternate-exchange": "backup"})
    world.bind("main", "q1", "k")
    assert world.route("main", "other") == []

    world.exchange("backup", "fanout", **{"alternate-exchange": ""})
    assert world.route("main", "q3") == ["q3"]
    world.bind("backup", "q2")

    assert world.route("main", "other") == ["q2"]
    assert world.route("main", "k") == ["q1"]


def test_alternate_exchanges_in_a_circle_end(world: World) -> None:
    world.exchange("a", "direct", **{"alternate-exchange": "b"})
    world.exchange("b", "direct", **{"alternate-exchange": "a"})

    assert world.route("a", "k") == []


def test_a_router_stays_valid_over_a_restored_snapshot(world: World) -> None:
    snapshot = world.machine.snapshot()
    world.exchange("x", "fanout")
    world.bind("amq.topic", "q1", "#")
    router = world.router("amq.topic")
    world.router("x")
    assert len(router.route("k", dict)) == 1

    world.machine.restore(snapshot)
    world.follow()
    assert router.route("k", dict) == ()
    assert world.routers.router("/", "x") is None
    world.bind("amq.topic", "q2", "#")

    assert len(router.route("k", dict)) == 1
    assert world.router("amq.topic") is router


def test_a_router_that_is_ahead_of_the_news_finds_no_deleted_queue(world: World) -> None:
    world.bind("amq.direct", "q1", "k")
    world.router("amq.direct")
    queue = world.machine.model.queue("/", "q1")
    assert queue is not None

    world.machine.apply(1, 0, c.encode(c.DeleteQueue("/", "q1", queue.uid)), 0)

    assert world.router("amq.direct").route("k", dict) == ()


def test_what_a_router_remembers_is_bounded(world: World) -> None:
    world.bind("amq.topic", "q1", "#")
    router = world.router("amq.topic")

    for n in range(MEMO_WEIGHT_MAX):
        router.route(str(n), dict)

    assert len(router._memo) <= MEMO_WEIGHT_MAX // 2
    assert router.route("0", dict) == router.route("1", dict) != ()


NAMES = st.sampled_from(["a", "b", "c", "d"])
STEPS = st.lists(
    st.tuples(st.booleans(), NAMES, st.one_of(NAMES, st.sampled_from(["q1", "q2"])), st.just("k")),
    max_size=25,
)


@given(STEPS)
@settings(max_examples=150)
def test_a_router_that_follows_answers_as_one_made_now(
    steps: list[tuple[bool, str, str, str]],
) -> None:
    world = World()
    for name, type_ in (("a", "topic"), ("b", "fanout"), ("c", "direct"), ("d", "headers")):
        world.exchange(name, type_)
    world.queue("q1")
    world.queue("q2")

    for is_bound, source, destination, key in steps:
        kind: DestinationKind = "queue" if destination.startswith("q") else "exchange"
        change = world.bind if is_bound else world.unbind
        change(source, destination, key, kind)

        fresh = Routers(world.machine.model, decode=decode, alternate=alternate)
        for name in ("a", "b", "c", "d"):
            made_now = fresh.router("/", name)
            assert made_now is not None
            for each in ("k", "other"):
                assert set(world.router(name).route(each, dict)) == set(made_now.route(each, dict))
            assert world.router(name).routes_one_by_one == made_now.routes_one_by_one
