"""Which of several policies a queue or an exchange has."""

from __future__ import annotations

import re

import pytest

from leveret.amqp.fields import encode_table
from leveret.broker.policies import in_force
from leveret.broker.policies.checks import compile_pattern
from leveret.broker.policies.in_force import Policies
from leveret.catalog import CatalogMachine
from leveret.catalog import commands as c
from leveret.catalog.model import ApplyTo, Exchange, PasswordHash, Queue


class World:
    """A catalog with policies in it."""

    def __init__(self) -> None:
        self.machine = CatalogMachine()
        self.do(c.Bootstrap("lab", 1, "guest", PasswordHash("scrypt", b"s", b"h")))
        self.do(c.RegisterNode(1, "n1", (), 1))
        self.policies = Policies(self.machine.model)

    def do(self, command: c.AnyCommand) -> None:
        reply = self.machine.apply(1, 0, c.encode(command), 0)
        assert isinstance(reply, c.Done), reply

    def set(
        self,
        name: str,
        pattern: str,
        definition: str = '{"max-length":1}',
        *,
        apply_to: ApplyTo = "all",
        priority: int = 0,
        is_operator: bool = False,
    ) -> None:
        octets = definition.encode()
        self.do(c.SetPolicy("/", is_operator, name, pattern, apply_to, priority, octets))

    def clear(self, name: str, *, is_operator: bool = False) -> None:
        self.do(c.ClearPolicy("/", is_operator, name))

    def queue(self, name: str, queue_type: str | None = None) -> Queue:
        table = encode_table({} if queue_type is None else {"x-queue-type": queue_type})
        if self.machine.model.queue("/", name) is None:
            self.do(c.DeclareQueue("/", name, True, False, False, table, 1, 1, 0))
        queue = self.machine.model.queue("/", name)
        assert queue is not None
        return queue

    def exchange(self, name: str) -> Exchange:
        exchange = self.machine.model.exchange("/", name)
        assert exchange is not None
        return exchange

    def names(self, queue: Queue) -> tuple[str | None, str | None]:
        found = self.policies.of_queue(queue)
        return (
            found.policy and found.policy.name,
            found.operator_policy and found.operator_policy.name,
        )  # type: ignore[return-value]  # `and` gives None or the name


@pytest.fixture
def world() -> World:
    return World()


def test_the_policy_with_the_highest_priority_counts_and_then_the_first_by_name(
    world: World,
) -> None:
    queue = world.queue("orders.eu")
    for name, pattern, priority in (
        ("b", "orders", 1),
        ("a", "^orders", 1),
        ("low", ".*", 0),
        ("no", "^eu", 9),
    ):
        world.set(name, pattern, priority=priority)
    assert world.names(queue) == ("a", None)

    world.set("b", "eu$", priority=2)
    assert world.names(queue) == ("b", None)
    world.clear("b")
    assert world.names(queue) == ("a", None)
    world.set("a", "^nothing", priority=1)
    assert world.names(queue) == ("low", None)


def test_an_operator_policy_counts_beside_the_policy(world: World) -> None:
    queue = world.queue("q")
    world.set("p", "q", '{"max-length":10,"message-ttl":5}')
    world.set("op", "q", '{"max-length":3,"expires":7}', is_operator=True)

    assert world.names(queue) == ("p", "op")
    assert world.policies.definition(queue) == {"expires": 7, "max-length": 3, "message-ttl": 5}


@pytest.mark.parametrize(
    ("apply_to", "for_classic", "for_quorum", "for_exchange"),
    [
        ("all", True, True, True),
        ("queues", True, True, False),
        ("classic_queues", True, False, False),
        ("quorum_queues", False, True, False),
        ("streams", False, False, False),
        ("exchanges", False, False, True),
    ],
)
def test_a_policy_is_for_the_kinds_that_it_applies_to(
    world: World, apply_to: ApplyTo, for_classic: bool, for_quorum: bool, for_exchange: bool
) -> None:
    world.set("p", "", apply_to=apply_to)

    assert (world.names(world.queue("untyped"))[0] == "p") is for_classic
    assert (world.names(world.queue("c", "classic"))[0] == "p") is for_classic
    assert (world.names(world.queue("q", "quorum"))[0] == "p") is for_quorum
    assert (world.policies.of_exchange(world.exchange("amq.topic")) is not None) is for_exchange


def test_a_policy_with_a_setting_that_a_type_lacks_is_passed_over_for_it(world: World) -> None:
    world.set("mirrored", ".*", '{"ha-mode":"all"}', priority=2)
    world.set("limited", ".*", '{"delivery-limit":3}', priority=1)
    world.set("short", ".*", '{"max-length":3}')

    assert world.names(world.queue("c", "classic")) == ("mirrored", None)
    assert world.names(world.queue("q", "quorum")) == ("limited", None)
    world.clear("mirrored")
    assert world.names(world.queue("c", "classic")) == ("short", None)


def test_an_alternate_exchange_comes_from_the_argument_or_else_from_the_policy(
    world: World,
) -> None:
    table = encode_table({"alternate-exchange": "own"})
    world.do(c.DeclareExchange("/", "with", "fanout", True, False, False, table))
    world.do(c.DeclareExchange("/", "without", "fanout", True, False, False, b""))

    def alternates() -> list[str | None]:
        return [world.policies.alternate(world.exchange(name)) for name in ("with", "without")]

    assert alternates() == ["own", None]
    world.set("p", "with", '{"alternate-exchange":"by-policy"}')
    assert alternates() == ["own", "by-policy"]
    world.clear("p")
    assert alternates() == ["own", None]


def test_a_pattern_is_compiled_once_and_tried_once_a_queue(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str] = []

    def count(pattern: str) -> re.Pattern[str]:
        compiled.append(pattern)
        return compile_pattern(pattern)

    monkeypatch.setattr(in_force, "compile_pattern", count)
    queues = [world.queue(f"q{number}") for number in range(100)]
    for number in range(5):
        world.set(f"p{number}", f"q.*{number}$", priority=number)
        for queue in queues:
            world.policies.definition(queue)
    world.set("p0", "q.*0$", '{"max-length":2}')
    for queue in queues:
        world.policies.definition(queue)

    assert compiled == [f"q.*{number}$" for number in range(5)] + ["q.*0$"]
    assert sum(bool(world.policies.definition(queue)) for queue in queues) == 50
