"""What each command of the catalog does, one sentence a test."""

from __future__ import annotations

from typing import Literal, TypeVar

import msgspec
import pytest

from leveret.catalog import commands as c
from leveret.catalog.machine import CatalogMachine
from leveret.catalog.model import Binding, Entity, Exchange, Node, PasswordHash, Queue, VirtualHost

E = TypeVar("E", bound=Entity)
NO_ARGUMENTS = b"\0\0\0\0"
PASSWORD = PasswordHash("sha256", b"salt", b"digest")


def reply(machine: CatalogMachine, command: c.Command[Entity]) -> c.Reply:
    return machine.apply(1, 0, c.encode(command), 0)


def do(machine: CatalogMachine, command: c.Command[E]) -> E:
    answer = reply(machine, command)
    assert isinstance(answer, c.Done), answer
    assert answer.entity is not None
    return answer.entity  # type: ignore[return-value]  # the machine answers with the command's entity


def outcome(machine: CatalogMachine, command: c.Command[Entity]) -> str:
    answer = reply(machine, command)
    return answer.kind if isinstance(answer, c.Refusal) else answer.outcome


def declare_queue(
    name: str,
    *,
    durable: bool = True,
    exclusive: bool = False,
    auto_delete: bool = False,
    node: int = 1,
    boot: int = 1,
    owner: int = 0,
) -> c.DeclareQueue:
    return c.DeclareQueue(
        "/", name, durable, exclusive, auto_delete, NO_ARGUMENTS, node, boot, owner
    )


def declare_exchange(
    name: str, *, auto_delete: bool = False, durable: bool = True
) -> c.DeclareExchange:
    return c.DeclareExchange("/", name, "fanout", durable, auto_delete, False, NO_ARGUMENTS)


def bind(source: str, destination: str, *, kind: str = "queue", key: str = "") -> c.Bind:
    return c.Bind("/", source, "queue" if kind == "queue" else "exchange", destination, key, b"")


def unbind(source: str, destination: str, *, kind: str = "queue", key: str = "") -> c.Unbind:
    return c.Unbind("/", source, "queue" if kind == "queue" else "exchange", destination, key, b"")


@pytest.fixture
def machine() -> CatalogMachine:
    machine = CatalogMachine()
    do(machine, c.Bootstrap("lab", 3, "guest", PASSWORD))
    do(machine, c.RegisterNode(1, "n1", ("amqp://h1:5672",), 1))
    machine.take_events()
    return machine


def exchange_names(machine: CatalogMachine) -> set[str]:
    return {exchange.name for exchange in machine.model.exchanges("/")}


def test_bootstrap_founds_the_cluster_with_a_loopback_only_administrator() -> None:
    machine = CatalogMachine()

    cluster = do(machine, c.Bootstrap("lab", 3, "guest", PASSWORD))

    assert (cluster.id, cluster.shards) == ("lab", 3)
    user = machine.model.user("guest")
    assert user is not None
    assert (user.loopback_only, user.tags) == (True, ("administrator",))
    assert machine.model.permission("guest", "/") is not None


def test_a_second_bootstrap_changes_nothing(machine: CatalogMachine) -> None:
    before = machine.snapshot()

    answer = reply(machine, c.Bootstrap("other", 9, "root", PASSWORD))

    assert answer == c.Done("exists", machine.model.cluster)
    assert machine.snapshot() == before


def test_a_virtual_host_is_born_with_the_seven_exchanges_of_rabbitmq(
    machine: CatalogMachine,
) -> None:
    do(machine, c.AddVirtualHost("v"))

    found = {x.name: (x.type, x.durable, x.internal) for x in machine.model.exchanges("v")}
    assert found == {
        "": ("direct", True, False),
        "amq.direct": ("direct", True, False),
        "amq.fanout": ("fanout", True, False),
        "amq.headers": ("headers", True, False),
        "amq.match": ("headers", True, False),
        "amq.rabbitmq.trace": ("topic", True, True),
        "amq.topic": ("topic", True, False),
    }


def test_deleting_a_virtual_host_deletes_everything_in_it(machine: CatalogMachine) -> None:
    do(machine, declare_exchange("a", auto_delete=True))
    do(machine, declare_exchange("b", auto_delete=True))
    queue = do(machine, declare_queue("q"))
    do(machine, bind("a", "b", kind="exchange"))
    do(machine, bind("b", "q"))

    assert outcome(machine, c.DeleteVirtualHost("/")) == "deleted"

    state = machine.model.dump()
    assert (state.vhosts, state.exchanges, state.queues) == ((), (), ())
    assert (state.bindings, state.permissions) == ((), ())
    assert machine.model.queue_by_uid(queue.uid) is None
    assert machine.model.user("guest") is not None


def test_putting_a_user_again_keeps_loopback_only(machine: CatalogMachine) -> None:
    user = do(machine, c.PutUser("guest", None, ("monitoring",)))

    assert (user.password, user.tags, user.loopback_only) == (None, ("monitoring",), True)
    assert not do(machine, c.PutUser("bob", PASSWORD, ())).loopback_only


def test_a_new_user_does_not_replace_one_that_is_there(machine: CatalogMachine) -> None:
    assert outcome(machine, c.PutUser("bob", PASSWORD, (), "new")) == "created"
    assert outcome(machine, c.PutUser("bob", None, ("monitoring",), "new")) == "exists"

    bob = machine.model.user("bob")
    assert bob is not None
    assert (bob.password, bob.tags) == (PASSWORD, ())


def test_password_and_tags_of_a_user_change_apart(machine: CatalogMachine) -> None:
    do(machine, c.PutUser("bob", PASSWORD, ("monitoring",)))
    other = PasswordHash("sha256", b"salt", b"other")

    tagged = do(machine, c.PutUser("bob", None, ("management",), "tags"))
    assert (tagged.password, tagged.tags) == (PASSWORD, ("management",))
    changed = do(machine, c.PutUser("bob", other, (), "password"))
    assert (changed.password, changed.tags) == (other, ("management",))


@pytest.mark.parametrize("part", ["password", "tags"])
def test_a_part_of_a_user_that_is_not_there_is_refused(
    part: Literal["password", "tags"], machine: CatalogMachine
) -> None:
    assert reply(machine, c.PutUser("bob", PASSWORD, (), part)) == c.Refusal(
        "not_found", "user", "bob"
    )
    assert machine.model.user("bob") is None


def test_deleting_a_user_deletes_its_permissions(machine: CatalogMachine) -> None:
    assert outcome(machine, c.DeleteUser("guest")) == "deleted"

    assert machine.model.permission("guest", "/") is None
    assert outcome(machine, c.DeleteUser("guest")) == "absent"


def test_a_permission_needs_its_user_and_its_virtual_host(machine: CatalogMachine) -> None:
    assert reply(machine, c.SetPermission("bob", "/", "", "", "")) == c.Refusal(
        "not_found", "user", "bob"
    )
    assert reply(machine, c.SetPermission("guest", "v", "", "", "")) == c.Refusal(
        "not_found", "vhost", "v"
    )


def test_what_is_not_said_of_a_virtual_host_stays(machine: CatalogMachine) -> None:
    do(machine, c.AddVirtualHost("v", "orders", ("eu",), "quorum"))

    assert outcome(machine, c.UpdateVirtualHost("v", is_protected=True, queues_max=5)) == "changed"
    assert outcome(machine, c.UpdateVirtualHost("v", description="sales")) == "changed"
    assert outcome(machine, c.UpdateVirtualHost("v", tags=("eu",))) == "exists"

    expected = VirtualHost("v", "sales", ("eu",), "quorum", is_protected=True, queues_max=5)
    assert machine.model.vhost("v") == expected
    assert reply(machine, c.UpdateVirtualHost("w")) == c.Refusal("not_found", "vhost", "w")


def test_a_protected_virtual_host_is_not_deleted(machine: CatalogMachine) -> None:
    do(machine, c.UpdateVirtualHost("/", is_protected=True))

    assert reply(machine, c.DeleteVirtualHost("/")) == c.Refusal("not_allowed", "vhost", "/")


def test_a_users_limits_outlive_a_change_of_its_password(machine: CatalogMachine) -> None:
    do(machine, c.PutUser("guest", None, (), "limits", 5))
    do(machine, c.PutUser("guest", None, (), "limits", None, 7))
    do(machine, c.PutUser("guest", PASSWORD, (), "password"))
    do(machine, c.PutUser("guest", PASSWORD, ("x",)))

    guest = machine.model.user("guest")
    assert guest is not None
    assert (guest.connections_max, guest.channels_max) == (5, 7)


def test_a_topic_permission_needs_its_user_and_its_virtual_host_but_no_exchange(
    machine: CatalogMachine,
) -> None:
    assert reply(machine, c.SetTopicPermission("bob", "/", "x", "", "")) == c.Refusal(
        "not_found", "user", "bob"
    )
    assert reply(machine, c.SetTopicPermission("guest", "v", "x", "", "")) == c.Refusal(
        "not_found", "vhost", "v"
    )
    assert outcome(machine, c.SetTopicPermission("guest", "/", "x", "a", "b")) == "created"
    assert outcome(machine, c.SetTopicPermission("guest", "/", "x", "a", "b")) == "exists"
    assert outcome(machine, c.SetTopicPermission("guest", "/", "x", "", "b")) == "changed"


def test_topic_permissions_are_cleared_for_one_exchange_or_for_all(
    machine: CatalogMachine,
) -> None:
    for exchange in ("x", "y", "z"):
        do(machine, c.SetTopicPermission("guest", "/", exchange, "", ""))

    assert outcome(machine, c.ClearTopicPermission("guest", "/", "x")) == "deleted"
    assert ["y", "z"] == [p.exchange for p in machine.model.topic_permissions()]
    assert outcome(machine, c.ClearTopicPermission("guest", "/", None)) == "deleted"
    assert not machine.model.topic_permissions()
    assert outcome(machine, c.ClearTopicPermission("guest", "/", None)) == "absent"


def test_a_permission_is_replaced_and_cleared(machine: CatalogMachine) -> None:
    assert outcome(machine, c.SetPermission("guest", "/", "a", "b", "c")) == "changed"
    assert outcome(machine, c.SetPermission("guest", "/", "a", "b", "c")) == "exists"
    assert outcome(machine, c.ClearPermission("guest", "/")) == "deleted"
    assert outcome(machine, c.ClearPermission("guest", "/")) == "absent"


def test_declaring_an_exchange_again_answers_with_the_first_one(machine: CatalogMachine) -> None:
    first = do(machine, declare_exchange("x"))

    answer = reply(machine, c.DeclareExchange("/", "x", "topic", False, True, True, b"z"))

    assert answer == c.Done("exists", first)


@pytest.mark.parametrize("name", ["", "amq.direct", "amq.rabbitmq.trace"])
def test_a_predeclared_exchange_cannot_be_deleted(machine: CatalogMachine, name: str) -> None:
    answer = reply(machine, c.DeleteExchange("/", name, False))

    assert answer == c.Refusal("not_allowed", "exchange", name, "/")


def test_if_unused_counts_the_bindings_from_the_exchange_only(machine: CatalogMachine) -> None:
    do(machine, declare_exchange("u"))
    do(machine, declare_exchange("v"))
    do(machine, bind("v", "u", kind="exchange"))

    assert reply(machine, c.DeleteExchange("/", "v", True)) == c.Refusal(
        "in_use", "exchange", "v", "/"
    )
    assert outcome(machine, c.DeleteExchange("/", "u", True)) == "deleted"


def test_deleting_a_missing_exchange_or_queue_answers_absent(machine: CatalogMachine) -> None:
    assert outcome(machine, c.DeleteExchange("/", "nope", True)) == "absent"
    assert outcome(machine, c.DeleteQueue("/", "nope", 1)) == "absent"


def test_binding_twice_makes_one_binding(machine: CatalogMachine) -> None:
    do(machine, declare_queue("q"))

    assert outcome(machine, bind("amq.direct", "q", key="k")) == "created"
    assert outcome(machine, bind("amq.direct", "q", key="k")) == "exists"
    assert outcome(machine, bind("amq.direct", "q", key="l")) == "created"
    assert len(machine.model.bindings_to("/", "queue", "q")) == 2


def test_binding_names_the_missing_source_first(machine: CatalogMachine) -> None:
    assert reply(machine, bind("x", "q")) == c.Refusal("not_found", "exchange", "x", "/")
    assert reply(machine, bind("amq.direct", "q")) == c.Refusal("not_found", "queue", "q", "/")
    assert reply(machine, bind("amq.direct", "y", kind="exchange")) == c.Refusal(
        "not_found", "exchange", "y", "/"
    )


def test_nothing_is_bound_to_the_default_exchange(machine: CatalogMachine) -> None:
    do(machine, declare_queue("q"))

    assert outcome(machine, bind("", "q")) == "not_allowed"
    assert outcome(machine, bind("amq.direct", "", kind="exchange")) == "not_allowed"


def test_unbinding_what_is_not_bound_answers_absent(machine: CatalogMachine) -> None:
    assert outcome(machine, unbind("nope", "q")) == "absent"


def test_an_auto_delete_exchange_goes_with_the_last_binding_from_it(
    machine: CatalogMachine,
) -> None:
    do(machine, declare_exchange("x", auto_delete=True))
    do(machine, declare_queue("q"))
    do(machine, bind("x", "q", key="1"))
    do(machine, bind("x", "q", key="2"))

    do(machine, unbind("x", "q", key="1"))
    assert "x" in exchange_names(machine)
    do(machine, unbind("x", "q", key="2"))

    assert "x" not in exchange_names(machine)


def test_an_auto_delete_exchange_that_was_never_a_source_stays(machine: CatalogMachine) -> None:
    do(machine, declare_exchange("source"))
    do(machine, declare_exchange("x", auto_delete=True))
    do(machine, bind("source", "x", kind="exchange"))

    do(machine, unbind("source", "x", kind="exchange"))

    assert "x" in exchange_names(machine)


def test_auto_deletion_runs_up_the_exchange_bindings(machine: CatalogMachine) -> None:
    for name in ("a", "b", "c"):
        do(machine, declare_exchange(name, auto_delete=True))
    do(machine, declare_exchange("kept"))
    queue = do(machine, declare_queue("q"))
    do(machine, bind("a", "b", kind="exchange"))
    do(machine, bind("b", "c", kind="exchange"))
    do(machine, bind("kept", "c", kind="exchange"))
    do(machine, bind("c", "q"))

    do(machine, c.DeleteQueue("/", "q", queue.uid))

    assert exchange_names(machine) & {"a", "b", "c", "kept"} == {"kept"}
    assert not machine.model.bindings()


def test_an_auto_delete_exchange_bound_to_itself_goes_with_that_binding(
    machine: CatalogMachine,
) -> None:
    do(machine, declare_exchange("s", auto_delete=True))
    do(machine, bind("s", "s", kind="exchange"))

    do(machine, unbind("s", "s", kind="exchange"))

    assert "s" not in exchange_names(machine)


def test_a_cycle_of_auto_delete_exchanges_is_deleted_with_one_of_them(
    machine: CatalogMachine,
) -> None:
    do(machine, declare_exchange("a", auto_delete=True))
    do(machine, declare_exchange("b", auto_delete=True))
    do(machine, bind("a", "b", kind="exchange"))
    do(machine, bind("b", "a", kind="exchange"))

    do(machine, c.DeleteExchange("/", "a", False))

    assert not exchange_names(machine) & {"a", "b"}
    assert not machine.model.bindings()


def test_a_uid_is_never_used_again(machine: CatalogMachine) -> None:
    first = do(machine, declare_queue("q"))
    do(machine, c.DeleteQueue("/", "q", first.uid))
    second = do(machine, declare_queue("q"))

    assert second.uid > first.uid


def test_a_late_delete_spares_the_queue_declared_since(machine: CatalogMachine) -> None:
    first = do(machine, declare_queue("q"))
    do(machine, c.DeleteQueue("/", "q", first.uid))
    second = do(machine, declare_queue("q"))

    assert outcome(machine, c.DeleteQueue("/", "q", first.uid)) == "absent"
    assert machine.model.queue("/", "q") is second


def test_declaring_a_queue_again_answers_with_the_first_one(machine: CatalogMachine) -> None:
    first = do(machine, declare_queue("q"))

    assert reply(machine, declare_queue("q", durable=False)) == c.Done("exists", first)


def test_durable_queues_spread_over_the_shards(machine: CatalogMachine) -> None:
    queues = [do(machine, declare_queue(f"q{n}")) for n in range(4)]
    do(machine, c.DeleteQueue("/", "q1", queues[1].uid))
    refill = do(machine, declare_queue("q4"))

    assert [queue.shard for queue in queues] == [1, 2, 3, 1]
    assert refill.shard == 2
    assert [queue.home for queue in queues] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    "command",
    [
        declare_queue("q", durable=False),
        declare_queue("q", exclusive=True, owner=7),
        declare_queue("q", auto_delete=True),
    ],
)
def test_other_queues_live_where_they_were_declared(
    machine: CatalogMachine, command: c.DeclareQueue
) -> None:
    queue = do(machine, command)

    assert (queue.shard, queue.home, queue.boot) == (0, 1, 1)
    assert queue.owner == command.owner
    assert list(machine.model.queues_at(1)) == [queue]


def test_a_new_start_of_a_node_removes_the_queues_of_its_older_starts(
    machine: CatalogMachine,
) -> None:
    do(machine, c.RegisterNode(2, "n2", (), 1))
    do(machine, declare_queue("durable"))
    do(machine, declare_queue("here", durable=False))
    do(machine, declare_queue("there", durable=False, node=2))
    do(machine, bind("amq.fanout", "here"))

    do(machine, c.RegisterNode(1, "n1", (), 2))

    assert {queue.name for queue in machine.model.queues("/")} == {"durable", "there"}
    assert not machine.model.bindings()


def test_telling_the_same_start_again_keeps_its_queues(machine: CatalogMachine) -> None:
    do(machine, declare_queue("here", durable=False))

    assert outcome(machine, c.RegisterNode(1, "n1", ("amqp://h1:5672",), 1)) == "exists"
    assert outcome(machine, c.RegisterNode(1, "n1", ("amqp://new:5672",), 1)) == "changed"
    assert machine.model.queue("/", "here") is not None


def test_a_command_of_an_older_start_is_refused(machine: CatalogMachine) -> None:
    do(machine, c.RegisterNode(1, "n1", (), 2))

    assert outcome(machine, declare_queue("q", boot=1)) == "stale"
    assert outcome(machine, c.RegisterNode(1, "n1", (), 1)) == "stale"
    assert outcome(machine, declare_queue("q", node=9)) == "not_found"


def test_exchanges_that_are_not_durable_end_with_the_only_node(machine: CatalogMachine) -> None:
    do(machine, declare_exchange("transient", durable=False))
    do(machine, declare_exchange("up", durable=False, auto_delete=True))
    do(machine, declare_exchange("durable"))
    do(machine, bind("up", "transient", kind="exchange"))

    do(machine, c.RegisterNode(1, "n1", (), 2))

    assert not exchange_names(machine) & {"transient", "up"}
    assert "durable" in exchange_names(machine)


def test_exchanges_that_are_not_durable_outlive_one_of_several_nodes(
    machine: CatalogMachine,
) -> None:
    do(machine, c.RegisterNode(2, "n2", (), 1))
    do(machine, declare_exchange("transient", durable=False))

    do(machine, c.RegisterNode(1, "n1", (), 2))

    assert "transient" in exchange_names(machine)


def test_each_change_is_told_once_and_refusals_are_not(machine: CatalogMachine) -> None:
    exchange = do(machine, declare_exchange("x", auto_delete=True))
    queue = do(machine, declare_queue("q"))
    binding = do(machine, bind("x", "q"))
    reply(machine, bind("x", "q"))
    reply(machine, bind("x", "nope"))
    do(machine, c.DeleteQueue("/", "q", queue.uid))

    assert isinstance(exchange, Exchange)
    assert isinstance(queue, Queue)
    assert isinstance(binding, Binding)
    assert machine.take_events() == [
        c.Created(exchange),
        c.Created(queue),
        c.Created(binding),
        c.Deleted(binding),
        c.Deleted(exchange),
        c.Deleted(queue),
    ]
    assert machine.take_events() == []


def test_a_restored_machine_tells_only_that_it_was_restored(machine: CatalogMachine) -> None:
    snapshot = machine.snapshot()
    do(machine, declare_queue("q"))
    model = machine.model

    machine.restore(snapshot)

    assert machine.take_events() == [c.Restored()]
    assert machine.model is model
    assert model.queue("/", "q") is None


def test_a_snapshot_of_another_version_is_refused(machine: CatalogMachine) -> None:
    with pytest.raises(ValueError, match="unknown version"):
        machine.restore(b"\xff" + machine.snapshot()[1:])


def test_a_snapshot_of_the_first_version_is_read_with_its_nodes_numbers_as_used(
    machine: CatalogMachine,
) -> None:
    do(machine, c.RegisterNode(3, "n3", (), 1))
    state = msgspec.msgpack.decode(machine.snapshot()[1:])
    nodes = [node[:4] for node in state[2]]
    first_version = b"\x01" + msgspec.msgpack.encode([*state[:2], nodes, *state[3:9]])
    restored = CatalogMachine()

    restored.restore(first_version)

    assert restored.model.node(3) == Node(3, "n3", (), 1, peer="", incarnation=0)
    assert (restored.model.node_next, restored.model.removed_nodes) == (4, ())


def test_the_indexes_keep_nothing_of_what_was_unbound(machine: CatalogMachine) -> None:
    do(machine, declare_queue("q"))
    do(machine, bind("amq.direct", "q"))

    do(machine, unbind("amq.direct", "q"))

    assert not machine.model._bindings_from
    assert not machine.model._bindings_to


def test_a_restored_model_iterates_in_the_order_of_the_original(machine: CatalogMachine) -> None:
    do(machine, c.AddVirtualHost("v"))
    for name, vhost in (("1", "v"), ("2", "/"), ("3", "v"), ("4", "/")):
        do(machine, c.DeclareQueue(vhost, name, False, False, False, NO_ARGUMENTS, 1, 1, 0))
    restored = CatalogMachine()

    restored.restore(machine.snapshot())

    assert [queue.name for queue in restored.model.queues_at(1)] == ["1", "2", "3", "4"]
