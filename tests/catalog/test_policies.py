"""Policies in the catalog: two kinds, apart by name, and gone with their virtual host."""

from __future__ import annotations

import msgspec
import pytest

from leveret.catalog import commands as c
from leveret.catalog.machine import CatalogMachine
from leveret.catalog.model import PasswordHash, Policy

LIMIT = b'{"max-length":1}'


def apply(machine: CatalogMachine, command: c.AnyCommand) -> c.Reply:
    return machine.apply(1, 0, c.encode(command), 0)


def set_policy(name: str = "p", *, is_operator: bool = False, priority: int = 0) -> c.SetPolicy:
    return c.SetPolicy("/", is_operator, name, "^a", "queues", priority, LIMIT)


@pytest.fixture
def machine() -> CatalogMachine:
    machine = CatalogMachine()
    apply(machine, c.Bootstrap("lab", 3, "guest", PasswordHash("scrypt", b"s", b"h")))
    machine.take_events()
    return machine


def test_a_policy_is_set_changed_and_cleared_and_each_is_told(machine: CatalogMachine) -> None:
    first = Policy("/", False, "p", "^a", "queues", 0, LIMIT)
    second = Policy("/", False, "p", "^a", "queues", 7, LIMIT)

    assert c.Done("created", first) == apply(machine, set_policy())
    assert c.Done("exists", first) == apply(machine, set_policy())
    assert c.Done("changed", second) == apply(machine, set_policy(priority=7))
    assert c.Done("deleted", second) == apply(machine, c.ClearPolicy("/", False, "p"))
    assert c.Done("absent", None) == apply(machine, c.ClearPolicy("/", False, "p"))

    assert [c.Created(first), c.Changed(second), c.Deleted(second)] == machine.take_events()


def test_a_policy_and_an_operator_policy_may_have_one_name(machine: CatalogMachine) -> None:
    apply(machine, set_policy())
    apply(machine, set_policy(is_operator=True))

    apply(machine, c.ClearPolicy("/", False, "p"))

    assert machine.model.policy("/", "p", is_operator=False) is None
    assert [p.is_operator for p in machine.model.policies("/")] == [True]


def test_a_policy_of_no_virtual_host_is_refused(machine: CatalogMachine) -> None:
    reply = apply(machine, c.SetPolicy("nov", False, "p", "", "all", 0, LIMIT))

    assert c.Refusal("not_found", "vhost", "nov") == reply


def test_policies_go_with_their_virtual_host(machine: CatalogMachine) -> None:
    apply(machine, set_policy())
    apply(machine, set_policy(is_operator=True))
    machine.take_events()

    apply(machine, c.DeleteVirtualHost("/"))
    apply(machine, c.AddVirtualHost("/"))

    gone = [event.entity for event in machine.take_events() if isinstance(event, c.Deleted)]
    assert {True, False} == {p.is_operator for p in gone if isinstance(p, Policy)}
    assert not machine.model.policies("/")


def test_each_change_of_a_policy_is_counted(machine: CatalogMachine) -> None:
    seen = [machine.model.policy_changes]
    for command in (set_policy(), set_policy(priority=1), c.ClearPolicy("/", False, "p")):
        apply(machine, command)
        seen.append(machine.model.policy_changes)
    machine.restore(machine.snapshot())

    assert sorted({*seen, machine.model.policy_changes}) == [*seen, machine.model.policy_changes]


def test_a_snapshot_of_the_second_version_has_no_policies(machine: CatalogMachine) -> None:
    state = msgspec.msgpack.decode(machine.snapshot()[1:])
    second_version = b"\x02" + msgspec.msgpack.encode(state[:11])
    apply(machine, set_policy())

    machine.restore(second_version)

    assert not machine.model.policies("/")
    assert machine.model.user("guest") is not None


def test_a_restored_machine_has_the_policies_in_their_order(machine: CatalogMachine) -> None:
    for name in ("b", "a", "c"):
        apply(machine, set_policy(name))
    apply(machine, set_policy("b", priority=3))
    restored = CatalogMachine()

    restored.restore(machine.snapshot())

    assert list(machine.model.policies("/")) == list(restored.model.policies("/"))
    assert machine.snapshot() == restored.snapshot()
