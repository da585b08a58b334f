"""Who is a member of the cluster: what the catalog's commands about nodes do."""

from __future__ import annotations

import pytest

from leveret.catalog import commands as c
from leveret.catalog.machine import CatalogMachine
from leveret.catalog.model import Node, PasswordHash, Queue


def reply(machine: CatalogMachine, command: c.AnyCommand) -> c.Reply:
    return machine.apply(1, 0, c.encode(command), 0)


def outcome(machine: CatalogMachine, command: c.AnyCommand) -> str:
    answer = reply(machine, command)
    return answer.kind if isinstance(answer, c.Refusal) else answer.outcome


def admitted(machine: CatalogMachine, command: c.AdmitNode) -> Node:
    answer = reply(machine, command)
    assert isinstance(answer, c.Done), answer
    assert isinstance(answer.entity, Node)
    return answer.entity


def declare(machine: CatalogMachine, name: str, *, node: int, boot: int) -> str:
    """Declare a queue that lives on `node` and return the outcome."""
    return outcome(
        machine, c.DeclareQueue("/", name, False, False, False, b"\0\0\0\0", node, boot, 0)
    )


def queue_names(machine: CatalogMachine) -> set[str]:
    return {queue.name for queue in machine.model.queues("/")}


@pytest.fixture
def machine() -> CatalogMachine:
    """A cluster of node 1, whose data folder was made at 100 and which started at 101."""
    machine = CatalogMachine()
    reply(machine, c.Bootstrap("lab", 3, "guest", PasswordHash("sha256", b"s", b"h")))
    reply(machine, c.RegisterNode(1, "n1", ("amqp://h1:5672",), 101, "h1:7000", 100))
    machine.take_events()
    return machine


def test_a_registered_node_can_be_reached_by_the_others(machine: CatalogMachine) -> None:
    assert machine.model.node(1) == Node(
        1, "n1", ("amqp://h1:5672",), 101, peer="h1:7000", incarnation=100
    )


def test_a_newcomer_gets_the_next_number(machine: CatalogMachine) -> None:
    two = admitted(machine, c.AdmitNode(0, "n2", "h2:7000", 200))
    three = admitted(machine, c.AdmitNode(0, "n3", "h3:7000", 300))

    assert two == Node(2, "n2", (), 0, peer="h2:7000", incarnation=200)
    assert three.id == 3
    assert machine.take_events() == [c.Created(two), c.Created(three)]


def test_a_newcomer_that_asks_again_is_the_same_node(machine: CatalogMachine) -> None:
    first = admitted(machine, c.AdmitNode(0, "n2", "h2:7000", 200))

    answer = reply(machine, c.AdmitNode(0, "n2", "h2:7000", 200))

    assert answer == c.Done("exists", first)


def test_newcomers_of_the_same_millisecond_are_different_nodes(machine: CatalogMachine) -> None:
    two = admitted(machine, c.AdmitNode(0, "n2", "h2:7000", 200))
    three = admitted(machine, c.AdmitNode(0, "n3", "h3:7000", 200))

    assert (two.id, three.id) == (2, 3)


def test_a_number_that_was_given_by_hand_is_not_given_to_a_newcomer(
    machine: CatalogMachine,
) -> None:
    reply(machine, c.AdmitNode(7, "n7", "h7:7000", 200))

    assert admitted(machine, c.AdmitNode(0, "n8", "h8:7000", 300)).id == 8


def test_no_newcomer_is_admitted_when_the_numbers_are_used_up(machine: CatalogMachine) -> None:
    reply(machine, c.AdmitNode(c.NODES_MAX, "last", "h:7000", 200))

    answer = reply(machine, c.AdmitNode(0, "n8", "h8:7000", 300))

    assert answer == c.Refusal("not_allowed", "node", "n8")


def test_a_new_data_folder_replaces_the_older_one_with_its_queues(machine: CatalogMachine) -> None:
    reply(machine, c.AdmitNode(2, "n2", "h2:7000", 200))
    reply(machine, c.RegisterNode(2, "n2", ("amqp://h2:5672",), 201, "h2:7000", 200))
    declare(machine, "of the old folder", node=2, boot=201)
    machine.take_events()

    answer = reply(machine, c.AdmitNode(2, "n2", "h2:7001", 300))

    new = Node(2, "n2", (), 0, peer="h2:7001", incarnation=300)
    assert answer == c.Done("changed", new)
    deleted, changed = machine.take_events()
    assert isinstance(deleted, c.Deleted)
    assert isinstance(deleted.entity, Queue)
    assert changed == c.Changed(new)
    assert outcome(machine, c.AdmitNode(2, "n2", "h2:7001", 300)) == "exists"


def test_an_admitted_folder_declares_nothing_before_it_registers(machine: CatalogMachine) -> None:
    reply(machine, c.AdmitNode(2, "n2", "h2:7000", 200))
    assert declare(machine, "q", node=2, boot=201) == "stale"

    reply(machine, c.RegisterNode(2, "n2", (), 201, "h2:7000", 200))
    assert declare(machine, "q", node=2, boot=201) == "created"


def test_an_older_data_folder_is_refused(machine: CatalogMachine) -> None:
    stale = c.Refusal("stale", "node", "n1")

    assert reply(machine, c.AdmitNode(1, "n1", "h1:7000", 99)) == stale
    assert reply(machine, c.RegisterNode(1, "n1", (), 999, "h1:7000", 99)) == stale


def test_a_new_data_folder_may_start_with_a_clock_that_is_behind(machine: CatalogMachine) -> None:
    assert outcome(machine, c.RegisterNode(1, "n1", (), 50, "h1:7000", 200)) == "changed"

    assert outcome(machine, c.RegisterNode(1, "n1", (), 49, "h1:7000", 200)) == "stale"


def test_a_name_belongs_to_one_node(machine: CatalogMachine) -> None:
    in_use = c.Refusal("in_use", "node", "n1")

    assert reply(machine, c.AdmitNode(0, "n1", "h2:7000", 200)) == in_use
    assert reply(machine, c.AdmitNode(2, "n1", "h2:7000", 200)) == in_use
    assert reply(machine, c.RegisterNode(2, "n1", (), 201, "h2:7000", 200)) == in_use


def test_a_removed_node_takes_its_queues_with_it_and_never_comes_back(
    machine: CatalogMachine,
) -> None:
    reply(machine, c.RegisterNode(2, "n2", (), 201, "h2:7000", 200))
    declare(machine, "here", node=1, boot=101)
    declare(machine, "there", node=2, boot=201)
    node = machine.model.node(2)

    assert reply(machine, c.RemoveNode(2)) == c.Done("deleted", node)

    assert queue_names(machine) == {"here"}
    assert [n.id for n in machine.model.nodes()] == [1]
    assert machine.model.removed_nodes == (2,)
    assert outcome(machine, c.RemoveNode(2)) == "absent"
    refused = c.Refusal("not_allowed", "node", "n2")
    assert reply(machine, c.AdmitNode(2, "n2", "h2:7000", 300)) == refused
    assert reply(machine, c.RegisterNode(2, "n2", (), 301, "h2:7000", 300)) == refused
    assert admitted(machine, c.AdmitNode(0, "n2", "h2:7000", 300)).id == 3


def test_the_only_node_is_not_removed(machine: CatalogMachine) -> None:
    assert reply(machine, c.RemoveNode(1)) == c.Refusal("not_allowed", "node", "n1")


def test_a_lost_node_loses_its_queues_and_stays_a_member(machine: CatalogMachine) -> None:
    reply(machine, c.RegisterNode(2, "n2", (), 201, "h2:7000", 200))
    declare(machine, "here", node=1, boot=101)
    declare(machine, "there", node=2, boot=201)
    node = machine.model.node(2)

    assert reply(machine, c.LoseNode(2, 201)) == c.Done("changed", node)

    assert queue_names(machine) == {"here"}
    assert reply(machine, c.LoseNode(2, 201)) == c.Done("exists", node)
    assert reply(machine, c.LoseNode(3, 201)) == c.Done("absent", None)


def test_a_node_that_was_lost_by_mistake_goes_on(machine: CatalogMachine) -> None:
    reply(machine, c.RegisterNode(2, "n2", (), 201, "h2:7000", 200))
    reply(machine, c.LoseNode(2, 201))

    assert declare(machine, "again", node=2, boot=201) == "created"


def test_a_late_loss_spares_the_queues_of_the_next_start(machine: CatalogMachine) -> None:
    reply(machine, c.RegisterNode(2, "n2", (), 201, "h2:7000", 200))
    reply(machine, c.RegisterNode(2, "n2", (), 202, "h2:7000", 200))
    declare(machine, "there", node=2, boot=202)

    assert reply(machine, c.LoseNode(2, 201)) == c.Refusal("stale", "node", "n2")
    assert queue_names(machine) == {"there"}


def test_a_snapshot_remembers_the_removed_nodes_and_the_next_number(
    machine: CatalogMachine,
) -> None:
    reply(machine, c.AdmitNode(0, "n2", "h2:7000", 200))
    reply(machine, c.RemoveNode(2))
    restored = CatalogMachine()

    restored.restore(machine.snapshot())

    assert restored.model.removed_nodes == (2,)
    assert admitted(restored, c.AdmitNode(0, "n3", "h3:7000", 300)).id == 3
