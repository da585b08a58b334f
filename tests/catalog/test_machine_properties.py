"""The machine against a naive model, and replicas against each other, for random commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from leveret.catalog import commands as c
from leveret.catalog.machine import CatalogMachine
from leveret.catalog.model import (
    PREDECLARED_EXCHANGES,
    PREDECLARED_NAMES,
    Binding,
    Exchange,
    Node,
    PasswordHash,
    Policy,
    Queue,
)

VHOSTS = st.sampled_from(["/", "v"])
EXCHANGES = st.sampled_from(["a", "b", "c", "amq.fanout", ""])
QUEUES = st.sampled_from(["q", "r", "s"])
POLICIES = st.sampled_from(["p", "o"])
USERS = st.sampled_from(["guest", "bob"])
NODES = st.sampled_from([1, 1, 2, 2, 3])
NODE_NAMES = st.sampled_from(["n1", "n2", "n3"])
INCARNATIONS = st.sampled_from([0, 0, 0, 1, 2])
BOOTS = st.sampled_from([1, 1, 1, 1, 2, 3])
BOOLS = st.booleans()
KEYS = st.sampled_from(["", "k"])
NONE = st.just(b"")
FOUND = (
    c.Bootstrap("lab", 2, "guest", PasswordHash("sha256", b"s", b"h")),
    c.RegisterNode(1, "n1", (), 1),
)

COMMANDS: st.SearchStrategy[c.AnyCommand] = st.one_of(
    st.builds(c.AddVirtualHost, VHOSTS),
    st.builds(c.DeleteVirtualHost, VHOSTS),
    st.builds(
        c.UpdateVirtualHost,
        VHOSTS,
        is_protected=st.none() | BOOLS,
        queues_max=st.sampled_from([None, -1, 1]),
    ),
    st.builds(
        c.PutUser,
        USERS,
        st.none(),
        st.sampled_from([(), ("monitoring",)]),
        st.sampled_from(["all", "new", "password", "tags", "limits"]),
        st.sampled_from([None, 3]),
    ),
    st.builds(c.DeleteUser, USERS),
    st.builds(c.SetPermission, USERS, VHOSTS, KEYS, KEYS, KEYS),
    st.builds(c.ClearPermission, USERS, VHOSTS),
    st.builds(c.SetTopicPermission, USERS, VHOSTS, EXCHANGES, KEYS, KEYS),
    st.builds(c.ClearTopicPermission, USERS, VHOSTS, st.none() | EXCHANGES),
    st.builds(
        c.DeclareExchange, VHOSTS, EXCHANGES, st.just("fanout"), BOOLS, BOOLS, st.just(False), NONE
    ),
    st.builds(c.DeleteExchange, VHOSTS, EXCHANGES, BOOLS),
    st.builds(c.Bind, VHOSTS, EXCHANGES, st.just("exchange"), EXCHANGES, KEYS, NONE),
    st.builds(c.Bind, VHOSTS, EXCHANGES, st.just("queue"), QUEUES, KEYS, NONE),
    st.builds(c.Unbind, VHOSTS, EXCHANGES, st.just("exchange"), EXCHANGES, KEYS, NONE),
    st.builds(c.Unbind, VHOSTS, EXCHANGES, st.just("queue"), QUEUES, KEYS, NONE),
    st.builds(c.DeclareQueue, VHOSTS, QUEUES, BOOLS, BOOLS, BOOLS, NONE, NODES, BOOTS, st.just(5)),
    st.builds(c.DeleteQueue, VHOSTS, QUEUES, st.integers(1, 4)),
    st.builds(c.RegisterNode, NODES, NODE_NAMES, st.just(()), BOOTS, st.just("p"), INCARNATIONS),
    st.builds(c.AdmitNode, st.sampled_from([0, 1, 2]), NODE_NAMES, st.just("p"), st.integers(1, 2)),
    st.builds(c.RemoveNode, NODES),
    st.builds(c.LoseNode, NODES, BOOTS),
    st.builds(
        c.SetPolicy,
        VHOSTS,
        BOOLS,
        POLICIES,
        KEYS,
        st.sampled_from(["all", "queues"]),
        st.integers(0, 1),
        NONE,
    ),
    st.builds(c.ClearPolicy, VHOSTS, BOOLS, POLICIES),
)
HISTORIES = st.lists(COMMANDS, max_size=40)


@dataclass
class Member:
    """A node as the naive model has it."""

    name: str
    incarnation: int
    boot: int


class Naive:
    """What the catalog holds, as flat lists that are scanned; rules are fixed points."""

    def __init__(self) -> None:
        self.vhosts: list[str] = []
        self.protected: dict[str, bool] = {}
        self.queues_max: dict[str, int] = {}
        self.users: list[str] = ["guest"]
        self.permissions: list[tuple[str, str]] = [("guest", "/")]
        self.topics: list[tuple[str, str, str]] = []
        self.exchanges: list[Exchange] = []
        self.queues: list[Queue] = []
        self.bindings: list[Binding] = []
        self.policies: list[Policy] = []
        self.nodes: dict[int, Member] = {1: Member("n1", 0, 1)}
        self.removed: list[int] = []
        self.numbers_used = [1]
        self.uid = 0
        self.add_vhost("/")

    def add_vhost(self, name: str) -> None:
        if name not in self.vhosts:
            self.vhosts.append(name)
            self.exchanges += [
                Exchange(name, x, kind, True, False, internal, b"\0\0\0\0")
                for x, kind, internal in PREDECLARED_EXCHANGES
            ]

    def has_exchange(self, vhost: str, name: str) -> bool:
        return any((x.vhost, x.name) == (vhost, name) for x in self.exchanges)

    def has_queue(self, vhost: str, name: str) -> bool:
        return any((q.vhost, q.name) == (vhost, name) for q in self.queues)

    def may_be_member(self, node: int, name: str, incarnation: int) -> bool:
        return (
            node not in self.removed
            and all(n == node or member.name != name for n, member in self.nodes.items())
            and (node not in self.nodes or self.nodes[node].incarnation <= incarnation)
        )

    def drop_queues_at(self, node: int) -> None:
        self.queues = [q for q in self.queues if q.home != node]

    def clear_policy(self, vhost: str, name: str, *, is_operator: bool) -> None:
        gone = (vhost, is_operator, name)
        self.policies = [p for p in self.policies if (p.vhost, p.is_operator, p.name) != gone]

    def settle(self, lost: list[Binding]) -> None:
        """Remove dangling bindings, and auto-delete exchanges that lost their last binding."""
        while True:
            for binding in list(self.bindings):
                has = self.has_queue if binding.kind == "queue" else self.has_exchange
                if not (
                    has(binding.vhost, binding.destination)
                    and self.has_exchange(binding.vhost, binding.source)
                ):
                    self.bindings.remove(binding)
                    lost.append(binding)
            gone = [
                x
                for x in self.exchanges
                if x.auto_delete
                and any((b.vhost, b.source) == (x.vhost, x.name) for b in lost)
                and not any((b.vhost, b.source) == (x.vhost, x.name) for b in self.bindings)
            ]
            if not gone:
                return
            self.exchanges = [x for x in self.exchanges if x not in gone]

    def apply(self, command: c.AnyCommand) -> None:
        lost: list[Binding] = []
        match command:
            case c.AddVirtualHost(name):
                self.add_vhost(name)
            case c.UpdateVirtualHost(name):
                if name in self.vhosts and command.is_protected is not None:
                    self.protected[name] = command.is_protected
                if name in self.vhosts and command.queues_max is not None:
                    self.queues_max[name] = command.queues_max
            case c.DeleteVirtualHost(name) if not self.protected.get(name):
                self.queues_max.pop(name, None)
                self.vhosts = [v for v in self.vhosts if v != name]
                self.exchanges = [x for x in self.exchanges if x.vhost != name]
                self.queues = [q for q in self.queues if q.vhost != name]
                self.permissions = [p for p in self.permissions if p[1] != name]
                self.topics = [t for t in self.topics if t[1] != name]
                self.policies = [p for p in self.policies if p.vhost != name]
            case c.DeleteVirtualHost():
                pass
            case c.PutUser(name):
                if name not in self.users and command.part in ("all", "new"):
                    self.users += [name]
            case c.DeleteUser(name):
                self.users = [u for u in self.users if u != name]
                self.permissions = [p for p in self.permissions if p[0] != name]
                self.topics = [t for t in self.topics if t[0] != name]
            case c.SetPermission(user, vhost):
                if user in self.users and vhost in self.vhosts:
                    self.permissions = [*{*self.permissions, (user, vhost)}]
            case c.ClearPermission(user, vhost):
                self.permissions = [p for p in self.permissions if p != (user, vhost)]
            case c.SetTopicPermission(user, vhost, exchange):
                if user in self.users and vhost in self.vhosts:
                    self.topics = [*{*self.topics, (user, vhost, exchange)}]
            case c.ClearTopicPermission(user, vhost, exchange):
                self.topics = [
                    t for t in self.topics if t[:2] != (user, vhost) or exchange not in (None, t[2])
                ]
            case c.DeclareExchange():
                if command.vhost in self.vhosts and not self.has_exchange(
                    command.vhost, command.name
                ):
                    self.exchanges.append(
                        Exchange(
                            command.vhost,
                            command.name,
                            "fanout",
                            command.durable,
                            command.auto_delete,
                            False,
                            b"",
                        )
                    )
            case c.DeleteExchange(vhost, name, if_unused):
                used = any((b.vhost, b.source) == (vhost, name) for b in self.bindings)
                if name not in PREDECLARED_NAMES and not (if_unused and used):
                    self.exchanges = [
                        x for x in self.exchanges if (x.vhost, x.name) != (vhost, name)
                    ]
            case c.Bind(vhost, source, kind, destination, key):
                has = self.has_queue if kind == "queue" else self.has_exchange
                binding = Binding(vhost, source, kind, destination, key, b"")
                if (
                    self.has_exchange(vhost, source)
                    and has(vhost, destination)
                    and "" not in (source, destination)
                    and binding not in self.bindings
                ):
                    self.bindings.append(binding)
            case c.Unbind(vhost, source, kind, destination, key):
                binding = Binding(vhost, source, kind, destination, key, b"")
                if binding in self.bindings:
                    self.bindings.remove(binding)
                    lost.append(binding)
            case c.DeclareQueue(vhost, name, durable, exclusive, auto_delete, _, node, boot):
                if (
                    vhost in self.vhosts
                    and node in self.nodes
                    and self.nodes[node].boot == boot
                    and not self.has_queue(vhost, name)
                    and self.queues_max.get(vhost, -1)
                    not in range(sum(q.vhost == vhost for q in self.queues) + 1)
                ):
                    self.uid += 1
                    replicated = durable and not exclusive and not auto_delete
                    loads = [sum(q.shard == n for q in self.queues) for n in (1, 2)]
                    self.queues.append(
                        Queue(
                            self.uid,
                            vhost,
                            name,
                            durable,
                            exclusive,
                            auto_delete,
                            b"",
                            (1 if loads[0] <= loads[1] else 2) if replicated else 0,
                            0 if replicated else node,
                            0 if replicated else boot,
                            5 if exclusive else 0,
                        )
                    )
            case c.DeleteQueue(vhost, name, uid):
                self.queues = [
                    q for q in self.queues if (q.vhost, q.name, q.uid) != (vhost, name, uid)
                ]
            case c.RegisterNode(node, name, _, boot, _, incarnation):
                if self.may_be_member(node, name, incarnation):
                    old = self.nodes.get(node, Member("", -1, 0))
                    if (incarnation, boot) > (old.incarnation, old.boot):
                        self.drop_queues_at(node)
                        if set(self.nodes) <= {node}:
                            self.exchanges = [x for x in self.exchanges if x.durable]
                    if (incarnation, boot) >= (old.incarnation, old.boot):
                        self.nodes[node] = Member(name, incarnation, boot)
                        self.numbers_used.append(node)
            case c.AdmitNode(node, name, _, incarnation):
                is_known = any(
                    (m.name, m.incarnation) == (name, incarnation)
                    for n, m in self.nodes.items()
                    if node in (0, n)
                )
                node = node or max(self.numbers_used) + 1
                if not is_known and self.may_be_member(node, name, incarnation):
                    old = self.nodes.get(node, Member("", -1, 0))
                    if incarnation > old.incarnation:
                        self.drop_queues_at(node)
                        self.nodes[node] = Member(name, incarnation, 0)
                        self.numbers_used.append(node)
            case c.RemoveNode(node):
                if len(self.nodes) > 1 and node in self.nodes:
                    del self.nodes[node]
                    self.removed.append(node)
                    self.drop_queues_at(node)
            case c.LoseNode(node, boot):
                if node in self.nodes and self.nodes[node].boot <= boot:
                    self.drop_queues_at(node)
            case c.SetPolicy(vhost, is_operator, name):
                if vhost in self.vhosts:
                    self.clear_policy(vhost, name, is_operator=is_operator)
                    more = (command.pattern, command.apply_to, command.priority, b"")
                    self.policies.append(Policy(vhost, is_operator, name, *more))
            case c.ClearPolicy(vhost, is_operator, name):
                self.clear_policy(vhost, name, is_operator=is_operator)
            case _:
                raise AssertionError(command)
        self.settle(lost)


def run(machine: CatalogMachine, history: Sequence[c.AnyCommand]) -> None:
    for index, command in enumerate(history):
        machine.apply(index, 0, c.encode(command), 0)


@given(HISTORIES)
@settings(max_examples=300)
def test_the_machine_holds_what_a_naive_model_holds(history: list[c.AnyCommand]) -> None:
    machine, naive = CatalogMachine(), Naive()
    run(machine, FOUND)

    for command in history:
        run(machine, [command])
        naive.apply(command)

        state = machine.model.dump()
        assert {v.name for v in state.vhosts} == set(naive.vhosts)
        assert {u.name for u in state.users} == set(naive.users)
        assert {(p.user, p.vhost) for p in state.permissions} == set(naive.permissions)
        topics = {(p.user, p.vhost, p.exchange) for p in state.topic_permissions}
        assert topics == set(naive.topics)
        assert {n.id: (n.name, n.incarnation, n.boot) for n in state.nodes} == {
            number: (m.name, m.incarnation, m.boot) for number, m in naive.nodes.items()
        }
        assert list(state.removed_nodes) == naive.removed
        assert state.node_next == max(naive.numbers_used) + 1
        assert set(state.exchanges) == set(naive.exchanges)
        assert set(state.queues) == set(naive.queues)
        assert set(state.bindings) == set(naive.bindings)
        assert set(state.policies) == set(naive.policies)


@given(HISTORIES)
def test_every_index_of_the_model_agrees_with_its_tables(history: list[c.AnyCommand]) -> None:
    machine = CatalogMachine()
    run(machine, [*FOUND, *history])
    model, state = machine.model, machine.model.dump()

    for queue in state.queues:
        assert model.queue(queue.vhost, queue.name) is queue
        assert model.queue_by_uid(queue.uid) is queue
    numbers = range(model.node_next)
    by_place = [q for n in numbers for q in (*model.queues_in_shard(n), *model.queues_at(n))]
    assert {q.uid for q in by_place} == {q.uid for q in state.queues}
    assert len(by_place) == len(state.queues)
    # Nothing is kept for what has no bindings any more.
    assert len(model._bindings_from) == len({(b.vhost, b.source) for b in state.bindings})
    assert len(model._bindings_to) == len(
        {(b.vhost, b.kind, b.destination) for b in state.bindings}
    )
    for policy in state.policies:
        found = model.policy(policy.vhost, policy.name, is_operator=policy.is_operator)
        assert found is policy
        assert policy in model.policies(policy.vhost)
    for exchange in state.exchanges:
        where = (exchange.vhost, exchange.name)
        assert list(model.bindings_from(*where)) == [
            b for b in state.bindings if (b.vhost, b.source) == where
        ]
        assert list(model.bindings_to(exchange.vhost, "exchange", exchange.name)) == [
            b for b in state.bindings if (b.vhost, b.destination, b.kind) == (*where, "exchange")
        ]


@given(HISTORIES, HISTORIES)
def test_a_restored_machine_goes_on_as_the_original_would(
    before: list[c.AnyCommand], after: list[c.AnyCommand]
) -> None:
    original, replica, restored = CatalogMachine(), CatalogMachine(), CatalogMachine()
    run(original, [*FOUND, *before])
    run(replica, [*FOUND, *before])
    restored.restore(original.snapshot())
    assert restored.snapshot() == original.snapshot() == replica.snapshot()
    for machine in (original, restored):
        machine.take_events()

    replies = [[m.apply(0, 0, c.encode(x), 0) for x in after] for m in (original, restored)]

    assert replies[0] == replies[1]
    assert original.take_events() == restored.take_events()
    assert original.snapshot() == restored.snapshot()


@given(HISTORIES)
def test_the_events_alone_rebuild_the_tables(history: list[c.AnyCommand]) -> None:
    machine = CatalogMachine()
    run(machine, [*FOUND, *history])

    exchanges: set[Exchange] = set()
    queues: set[Queue] = set()
    bindings: set[Binding] = set()
    nodes: dict[int, Node] = {}
    for event in machine.take_events():
        match event:
            case c.Created(Exchange() as x):
                exchanges.add(x)
            case c.Deleted(Exchange() as x):
                exchanges.remove(x)
            case c.Created(Queue() as q):
                queues.add(q)
            case c.Deleted(Queue() as q):
                queues.remove(q)
            case c.Created(Binding() as b):
                bindings.add(b)
            case c.Deleted(Binding() as b):
                bindings.remove(b)
            case c.Created(Node() as n):
                assert nodes.setdefault(n.id, n) is n
            case c.Changed(Node() as n):
                assert nodes[n.id] != n
                nodes[n.id] = n
            case c.Deleted(Node() as n):
                assert nodes.pop(n.id) == n

    state = machine.model.dump()
    assert exchanges == set(state.exchanges)
    assert queues == set(state.queues)
    assert bindings == set(state.bindings)
    assert list(nodes.values()) == list(state.nodes)
