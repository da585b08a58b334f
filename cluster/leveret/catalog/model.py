"""The entities of the catalog and the indexes over them.

Rule: this file holds what *is*; what may change, and what follows from a change, is `machine.py`.
Only the machine calls the verbs of `Model`; everybody else reads.
Every table is a dict in insertion order, never a set, so that replicas iterate alike.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Literal

import msgspec

DestinationKind = Literal["queue", "exchange"]
ApplyTo = Literal["all", "queues", "classic_queues", "quorum_queues", "streams", "exchanges"]

PREDECLARED_EXCHANGES: tuple[tuple[str, str, bool], ...] = (
    # name, type, internal: what RabbitMQ puts into each new virtual host (observed on 3.10.8).
    ("", "direct", False),
    ("amq.direct", "direct", False),
    ("amq.fanout", "fanout", False),
    ("amq.headers", "headers", False),
    ("amq.match", "headers", False),
    ("amq.rabbitmq.trace", "topic", True),
    ("amq.topic", "topic", False),
)
PREDECLARED_NAMES = frozenset(name for name, _, _ in PREDECLARED_EXCHANGES)

NO_LIMIT: Final = -1

EMPTY_TABLE = b"\x00\x00\x00\x00"
"""The arguments of an exchange that nobody declared: an encoded table without fields."""


class Cluster(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The identity of the cluster; `shards` is the number of shard groups, 1..64, for ever."""

    id: str
    shards: int


class Node(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A broker node: a member of the cluster, whether it runs or not.

    `addresses` are URLs for clients such as `amqp://h:5672`, `peer` is where the other nodes
    reach it ("host:port", "" if unknown).
    `incarnation` grows with each new data folder under the same number, `boot` with each start;
    `boot` is 0 for an incarnation that was admitted and has not registered a start yet.
    """

    id: int
    name: str
    addresses: tuple[str, ...]
    boot: int
    peer: str = ""
    incarnation: int = 0


class VirtualHost(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A name space of exchanges, queues and permissions.

    `default_queue_type` is the `x-queue-type` of queues that are declared without ("": none).
    One that `is_protected` cannot be deleted; of one that `is_traced` the firehose gets a copy of
    each message. `connections_max` and `queues_max` are `NO_LIMIT` or the most there may be.
    """

    name: str
    description: str = ""
    tags: tuple[str, ...] = ()
    default_queue_type: str = ""
    is_protected: bool = False
    is_traced: bool = False
    connections_max: int = NO_LIMIT
    queues_max: int = NO_LIMIT


class PasswordHash(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A password as it is kept: the algorithm's name, the salt and the digest."""

    algorithm: str
    salt: bytes
    hash: bytes


class User(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A user; `password` None means that no password opens it.

    `loopback_only` users may only log in from the node's own machine.
    `connections_max` and `channels_max` are `NO_LIMIT` or the most the user may have.
    """

    name: str
    password: PasswordHash | None
    tags: tuple[str, ...]
    loopback_only: bool
    connections_max: int = NO_LIMIT
    channels_max: int = NO_LIMIT


class Permission(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What `user` may do in `vhost`: a regular expression over resource names for each right."""

    user: str
    vhost: str
    configure: str
    write: str
    read: str


class TopicPermission(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Which routing keys `user` may use with a topic exchange: a regular expression for each right.

    Without one, all keys may be used. The exchange need not be there.
    """

    user: str
    vhost: str
    exchange: str
    write: str
    read: str


class Exchange(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An exchange; `arguments` are the encoded bytes that the declaration carried."""

    vhost: str
    name: str
    type: str
    durable: bool
    auto_delete: bool
    internal: bool
    arguments: bytes


class Queue(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A queue; `uid` is never used again, so a re-declared queue is another one.

    Invariant: either `shard` >= 1 (replicated) and `home`, `boot` are 0,
    or `shard` is 0 and the queue lives in start `boot` of node `home`.
    `owner` is the connection of that start which alone may use it, 0 if not exclusive.
    """

    uid: int
    vhost: str
    name: str
    durable: bool
    exclusive: bool
    auto_delete: bool
    arguments: bytes
    shard: int
    home: int
    boot: int
    owner: int


class Binding(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A binding; all its fields together are its identity.

    `arguments` are compared as bytes: who writes them encodes equal tables equally.
    """

    vhost: str
    source: str
    kind: DestinationKind
    destination: str
    routing_key: str
    arguments: bytes


class Policy(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Settings for the queues and exchanges of `vhost` whose names match `pattern`.

    An operator policy (`is_operator`) is a limit beside the policy that users are given; the two
    kinds have names of their own. `definition` is a JSON object: who writes it encodes equal
    definitions equally.
    """

    vhost: str
    is_operator: bool
    name: str
    pattern: str
    apply_to: ApplyTo
    priority: int
    definition: bytes


Entity = (
    Cluster
    | Node
    | VirtualHost
    | User
    | Permission
    | TopicPermission
    | Exchange
    | Queue
    | Binding
    | Policy
)


class State(msgspec.Struct, frozen=True, array_like=True):
    """Everything a snapshot holds, each list in the order in which the model iterates it."""

    cluster: Cluster | None
    uid_next: int
    nodes: tuple[Node, ...]
    vhosts: tuple[VirtualHost, ...]
    users: tuple[User, ...]
    permissions: tuple[Permission, ...]
    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]
    bindings: tuple[Binding, ...]
    node_next: int = 1
    removed_nodes: tuple[int, ...] = ()
    topic_permissions: tuple[TopicPermission, ...] = ()
    policies: tuple[Policy, ...] = ()


_NO_BINDINGS: dict[Binding, None] = {}


class Model:
    """The applied metadata; every lookup costs one dict access, every listing what it lists.

    The collections that the listings give are live views: copy before a change may come between.
    """

    policy_changes: int = 0
    """Grows with each change of a policy: what was concluded from them must be looked up again."""

    def __init__(self) -> None:
        self.load(State(None, 1, (), (), (), (), (), (), ()))

    def load(self, state: State) -> None:
        """Become `state`; the object stays, so those who hold it see the new content."""
        self.cluster = state.cluster
        self.uid_next = state.uid_next
        self.node_next = state.node_next
        """The number that the next newcomer gets; greater than every number ever used."""
        self.removed_nodes = state.removed_nodes
        """The numbers of the nodes that left: none of them comes back."""
        self._nodes: dict[int, Node] = {}
        for node in state.nodes:
            self.put_node(node)
        self._vhosts: dict[str, VirtualHost] = {}
        self._users = {user.name: user for user in state.users}
        self._permissions = {(p.user, p.vhost): p for p in state.permissions}
        self._topic_permissions = {
            (p.user, p.vhost, p.exchange): p for p in state.topic_permissions
        }
        self._exchanges: dict[str, dict[str, Exchange]] = {}
        self._queues: dict[str, dict[str, Queue]] = {}
        self._queues_by_uid: dict[int, Queue] = {}
        self._queues_by_shard: dict[int, dict[int, Queue]] = {}
        self._queues_by_home: dict[int, dict[int, Queue]] = {}
        self._policies: dict[str, dict[tuple[bool, str], Policy]] = {}
        self.policy_changes += 1
        self._bindings: dict[Binding, None] = {}
        self._bindings_from: dict[tuple[str, str], dict[Binding, None]] = {}
        self._bindings_to: dict[tuple[str, str, str], dict[Binding, None]] = {}
        for vhost in state.vhosts:
            self.add_vhost(vhost)
        for exchange in state.exchanges:
            self.add_exchange(exchange)
        for queue in state.queues:
            self.add_queue(queue)
        for binding in state.bindings:
            self.add_binding(binding)
        for policy in state.policies:
            self.put_policy(policy)

    def dump(self) -> State:
        """Return the whole content; `load` of it gives an equal model with equal iteration."""
        return State(
            self.cluster,
            self.uid_next,
            tuple(self._nodes.values()),
            tuple(self._vhosts.values()),
            tuple(self._users.values()),
            tuple(self._permissions.values()),
            tuple(x for of_vhost in self._exchanges.values() for x in of_vhost.values()),
            tuple(self._queues_by_uid.values()),
            tuple(self._bindings),
            self.node_next,
            self.removed_nodes,
            tuple(self._topic_permissions.values()),
            tuple(p for of_vhost in self._policies.values() for p in of_vhost.values()),
        )

    # Reading.

    def node(self, node: int) -> Node | None:
        return self._nodes.get(node)

    def nodes(self) -> Collection[Node]:
        return self._nodes.values()

    def node_named(self, name: str) -> Node | None:
        return next((node for node in self._nodes.values() if node.name == name), None)

    def vhost(self, name: str) -> VirtualHost | None:
        return self._vhosts.get(name)

    def vhosts(self) -> Collection[VirtualHost]:
        return self._vhosts.values()

    def user(self, name: str) -> User | None:
        return self._users.get(name)

    def users(self) -> Collection[User]:
        return self._users.values()

    def permission(self, user: str, vhost: str) -> Permission | None:
        return self._permissions.get((user, vhost))

    def permissions(self) -> Collection[Permission]:
        return self._permissions.values()

    def topic_permission(self, user: str, vhost: str, exchange: str) -> TopicPermission | None:
        return self._topic_permissions.get((user, vhost, exchange))

    def topic_permissions(self) -> Collection[TopicPermission]:
        return self._topic_permissions.values()

    def exchange(self, vhost: str, name: str) -> Exchange | None:
        of_vhost = self._exchanges.get(vhost)
        return None if of_vhost is None else of_vhost.get(name)

    def exchanges(self, vhost: str) -> Collection[Exchange]:
        return self._exchanges.get(vhost, {}).values()

    def queue(self, vhost: str, name: str) -> Queue | None:
        of_vhost = self._queues.get(vhost)
        return None if of_vhost is None else of_vhost.get(name)

    def queue_by_uid(self, uid: int) -> Queue | None:
        return self._queues_by_uid.get(uid)

    def queues(self, vhost: str) -> Collection[Queue]:
        return self._queues.get(vhost, {}).values()

    def queues_in_shard(self, shard: int) -> Collection[Queue]:
        """The replicated queues whose messages group `shard` carries."""
        return self._queues_by_shard.get(shard, {}).values()

    def queues_at(self, node: int) -> Collection[Queue]:
        """The queues that are not replicated and live on `node`."""
        return self._queues_by_home.get(node, {}).values()

    def has_binding(self, binding: Binding) -> bool:
        return binding in self._bindings

    def bindings(self) -> Collection[Binding]:
        return self._bindings.keys()

    def bindings_from(self, vhost: str, source: str) -> Collection[Binding]:
        """The bindings of which exchange `source` is the source."""
        return self._bindings_from.get((vhost, source), _NO_BINDINGS).keys()

    def bindings_to(
        self, vhost: str, kind: DestinationKind, destination: str
    ) -> Collection[Binding]:
        """The bindings that end in the queue or exchange `destination`."""
        return self._bindings_to.get((vhost, kind, destination), _NO_BINDINGS).keys()

    def policy(self, vhost: str, name: str, *, is_operator: bool) -> Policy | None:
        of_vhost = self._policies.get(vhost)
        return None if of_vhost is None else of_vhost.get((is_operator, name))

    def policies(self, vhost: str) -> Collection[Policy]:
        """The policies of both kinds."""
        return self._policies.get(vhost, {}).values()

    # Changing: for the machine only. An entity that is added is new, one that is removed is there.

    def put_node(self, node: Node) -> None:
        self._nodes[node.id] = node
        self.node_next = max(self.node_next, node.id + 1)

    def remove_node(self, node: Node) -> None:
        """Remove a node for ever."""
        del self._nodes[node.id]
        self.removed_nodes += (node.id,)

    def add_vhost(self, vhost: VirtualHost) -> None:
        self._vhosts[vhost.name] = vhost
        self._exchanges[vhost.name] = {}
        self._queues[vhost.name] = {}
        self._policies[vhost.name] = {}

    def replace_vhost(self, vhost: VirtualHost) -> None:
        """Give a virtual host other properties; what is in it stays."""
        self._vhosts[vhost.name] = vhost

    def remove_vhost(self, vhost: VirtualHost) -> None:
        """Remove an empty virtual host."""
        assert not self._exchanges.pop(vhost.name)
        assert not self._queues.pop(vhost.name)
        assert not self._policies.pop(vhost.name)
        del self._vhosts[vhost.name]

    def put_user(self, user: User) -> None:
        self._users[user.name] = user

    def remove_user(self, user: User) -> None:
        del self._users[user.name]

    def put_permission(self, permission: Permission) -> None:
        self._permissions[permission.user, permission.vhost] = permission

    def remove_permission(self, permission: Permission) -> None:
        del self._permissions[permission.user, permission.vhost]

    def put_topic_permission(self, permission: TopicPermission) -> None:
        key = (permission.user, permission.vhost, permission.exchange)
        self._topic_permissions[key] = permission

    def remove_topic_permission(self, permission: TopicPermission) -> None:
        del self._topic_permissions[permission.user, permission.vhost, permission.exchange]

    def add_exchange(self, exchange: Exchange) -> None:
        self._exchanges[exchange.vhost][exchange.name] = exchange

    def remove_exchange(self, exchange: Exchange) -> None:
        del self._exchanges[exchange.vhost][exchange.name]

    def add_queue(self, queue: Queue) -> None:
        self._queues[queue.vhost][queue.name] = queue
        self._queues_by_uid[queue.uid] = queue
        if queue.shard:
            self._queues_by_shard.setdefault(queue.shard, {})[queue.uid] = queue
        else:
            self._queues_by_home.setdefault(queue.home, {})[queue.uid] = queue

    def remove_queue(self, queue: Queue) -> None:
        del self._queues[queue.vhost][queue.name]
        del self._queues_by_uid[queue.uid]
        if queue.shard:
            del self._queues_by_shard[queue.shard][queue.uid]
        else:
            del self._queues_by_home[queue.home][queue.uid]

    def add_binding(self, binding: Binding) -> None:
        source = (binding.vhost, binding.source)
        destination = (binding.vhost, binding.kind, binding.destination)
        self._bindings[binding] = None
        self._bindings_from.setdefault(source, {})[binding] = None
        self._bindings_to.setdefault(destination, {})[binding] = None

    def remove_binding(self, binding: Binding) -> None:
        source = (binding.vhost, binding.source)
        destination = (binding.vhost, binding.kind, binding.destination)
        del self._bindings[binding]
        del self._bindings_from[source][binding]
        if not self._bindings_from[source]:
            del self._bindings_from[source]
        del self._bindings_to[destination][binding]
        if not self._bindings_to[destination]:
            del self._bindings_to[destination]

    def put_policy(self, policy: Policy) -> None:
        self._policies[policy.vhost][policy.is_operator, policy.name] = policy
        self.policy_changes += 1

    def remove_policy(self, policy: Policy) -> None:
        del self._policies[policy.vhost][policy.is_operator, policy.name]
        self.policy_changes += 1
