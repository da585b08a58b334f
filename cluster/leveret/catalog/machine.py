"""The catalog's replicated state machine: what each command does to the model.

Pure and total: the same commands give the same model, replies and snapshot bytes on every node,
and no input raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from leveret.catalog import commands as c
from leveret.catalog.model import (
    EMPTY_TABLE,
    NO_LIMIT,
    PREDECLARED_EXCHANGES,
    PREDECLARED_NAMES,
    Binding,
    Cluster,
    Exchange,
    Model,
    Node,
    Permission,
    Policy,
    Queue,
    State,
    TopicPermission,
    User,
    VirtualHost,
)
from leveret.catalog.placement import is_replicated, pick_shard

SNAPSHOT_VERSION: Final = 3
_READABLE_VERSIONS: Final = (1, 2, 3)
"""Version 1 knew neither incarnations nor removed nodes, 2 no policies; the fields' defaults stand
for them."""


class CatalogMachine:
    """The machine of group 0; `model` stays the same object for the machine's whole life."""

    def __init__(self) -> None:
        self.model = Model()
        self._events: list[c.Event] = []
        self._handlers: dict[type, Callable[..., c.Reply]] = {
            c.Bootstrap: self._bootstrap,
            c.AddVirtualHost: self._add_vhost,
            c.DeleteVirtualHost: self._delete_vhost,
            c.PutUser: self._put_user,
            c.DeleteUser: self._delete_user,
            c.SetPermission: self._set_permission,
            c.ClearPermission: self._clear_permission,
            c.DeclareExchange: self._declare_exchange,
            c.DeleteExchange: self._delete_exchange,
            c.Bind: self._bind,
            c.Unbind: self._unbind,
            c.DeclareQueue: self._declare_queue,
            c.DeleteQueue: self._delete_queue,
            c.RegisterNode: self._register_node,
            c.AdmitNode: self._admit_node,
            c.RemoveNode: self._remove_node,
            c.LoseNode: self._lose_node,
            c.SetTopicPermission: self._set_topic_permission,
            c.ClearTopicPermission: self._clear_topic_permission,
            c.SetPolicy: self._set_policy,
            c.ClearPolicy: self._clear_policy,
            c.UpdateVirtualHost: self._update_vhost,
        }

    def apply(self, index: int, stamp_ms: int, command: bytes, offset: int) -> c.Reply:
        """Carry out one command and return the answer to its submitter."""
        decoded = c.decode(command)
        if isinstance(decoded, c.Refusal):
            return decoded
        return self._handlers[type(decoded)](decoded)

    def take_events(self) -> list[c.Event]:
        """Return what happened since the last call, in order."""
        events, self._events = self._events, []
        return events

    def snapshot(self) -> bytes:
        return bytes((SNAPSHOT_VERSION,)) + msgspec.msgpack.encode(self.model.dump())

    def restore(self, state: bytes) -> None:
        """Become the machine that gave `state`.

        Raises:
            ValueError: the snapshot is of another version, or damaged.
        """
        if not state or state[0] not in _READABLE_VERSIONS:
            raise ValueError(f"catalog snapshot of unknown version {state[:1]!r}")
        self.model.load(msgspec.msgpack.decode(memoryview(state)[1:], type=State))
        self._events = [c.Restored()]

    def live_entries(self) -> Iterable[int]:
        """No entry is needed after it was applied: the model holds everything."""
        return ()

    # Cluster and nodes.

    def _bootstrap(self, command: c.Bootstrap) -> c.Reply:
        if self.model.cluster is not None:
            return c.Done("exists", self.model.cluster)
        cluster = Cluster(command.cluster_id, command.shards)
        self.model.cluster = cluster
        self._events.append(c.Created(cluster))
        self._add_vhost(c.AddVirtualHost("/"))
        user = User(command.user, command.password, ("administrator",), loopback_only=True)
        self.model.put_user(user)
        self._events.append(c.Created(user))
        self._set_permission(c.SetPermission(user.name, "/", ".*", ".*", ".*"))
        return c.Done("created", cluster)

    def _register_node(self, command: c.RegisterNode) -> c.Reply:
        refusal = self._refuse_node(command.node, command.name, command.incarnation)
        if refusal is not None:
            return refusal
        old = self.model.node(command.node)
        node = Node(
            command.node,
            command.name,
            command.addresses,
            command.boot,
            command.peer,
            command.incarnation,
        )
        if old is not None and _start(node) < _start(old):
            return c.Refusal("stale", "node", old.name)
        if node == old:
            return c.Done("exists", node)
        if old is None or _start(node) > _start(old):
            self._drop_queues_at(node)
            self._forget_transient_exchanges(node)
        return self._put_node(node)

    def _admit_node(self, command: c.AdmitNode) -> c.Reply:
        same_name = self.model.node_named(command.name)
        number = command.node
        if number == 0 and same_name is not None and same_name.incarnation == command.incarnation:
            return c.Done("exists", same_name)
        number = number or self.model.node_next
        if number > c.NODES_MAX:
            return c.Refusal("not_allowed", "node", command.name)
        refusal = self._refuse_node(number, command.name, command.incarnation)
        if refusal is not None:
            return refusal
        old = self.model.node(number)
        if old is not None and old.incarnation == command.incarnation:
            return c.Done("exists", old)
        node = Node(number, command.name, (), 0, command.peer, command.incarnation)
        self._drop_queues_at(node)
        return self._put_node(node)

    def _remove_node(self, command: c.RemoveNode) -> c.Reply:
        node = self.model.node(command.node)
        if node is None:
            return c.Done("absent", None)
        if len(self.model.nodes()) == 1:
            return c.Refusal("not_allowed", "node", node.name)
        self._drop_queues_at(node)
        self.model.remove_node(node)
        self._events.append(c.Deleted(node))
        return c.Done("deleted", node)

    def _lose_node(self, command: c.LoseNode) -> c.Reply:
        node = self.model.node(command.node)
        if node is None:
            return c.Done("absent", None)
        if node.boot > command.boot:
            return c.Refusal("stale", "node", node.name)
        return c.Done("changed" if self._drop_queues_at(node) else "exists", node)

    def _refuse_node(self, number: int, name: str, incarnation: int) -> c.Refusal | None:
        """Return why node `number` cannot be a member as `incarnation` named `name`, or None."""
        if number in self.model.removed_nodes:
            return c.Refusal("not_allowed", "node", name)
        same_name = self.model.node_named(name)
        if same_name is not None and same_name.id != number:
            return c.Refusal("in_use", "node", name)
        old = self.model.node(number)
        if old is not None and incarnation < old.incarnation:
            return c.Refusal("stale", "node", old.name)
        return None

    def _put_node(self, node: Node) -> c.Reply:
        is_new = self.model.node(node.id) is None
        self.model.put_node(node)
        self._events.append(c.Created(node) if is_new else c.Changed(node))
        return c.Done("created" if is_new else "changed", node)

    def _drop_queues_at(self, node: Node) -> bool:
        """Remove the queues that live on the node alone; True if there were any."""
        queues = list(self.model.queues_at(node.id))
        for queue in queues:
            self._drop_queue(queue)
        return bool(queues)

    def _forget_transient_exchanges(self, node: Node) -> None:
        # An exchange that is not durable lives as long as the cluster runs. Only a lone node can
        # know that the whole cluster was down; among several nodes such exchanges stay.
        if all(other.id == node.id for other in self.model.nodes()):
            for vhost in self.model.vhosts():
                for exchange in list(self.model.exchanges(vhost.name)):
                    # One that went with the last binding of an earlier one is gone already.
                    if not exchange.durable and self._is_there(exchange):
                        self._drop_exchange(exchange)

    def _is_there(self, exchange: Exchange) -> bool:
        return self.model.exchange(exchange.vhost, exchange.name) is exchange

    # Virtual hosts, users, permissions.

    def _add_vhost(self, command: c.AddVirtualHost) -> c.Reply:
        old = self.model.vhost(command.name)
        if old is not None:
            return c.Done("exists", old)
        vhost = VirtualHost(
            command.name, command.description, command.tags, command.default_queue_type
        )
        self.model.add_vhost(vhost)
        self._events.append(c.Created(vhost))
        for name, type_, internal in PREDECLARED_EXCHANGES:
            exchange = Exchange(vhost.name, name, type_, True, False, internal, EMPTY_TABLE)
            self.model.add_exchange(exchange)
            self._events.append(c.Created(exchange))
        return c.Done("created", vhost)

    def _delete_vhost(self, command: c.DeleteVirtualHost) -> c.Reply:
        vhost = self.model.vhost(command.name)
        if vhost is None:
            return c.Done("absent", None)
        if vhost.is_protected:
            return c.Refusal("not_allowed", "vhost", vhost.name)
        for queue in list(self.model.queues(vhost.name)):
            self._drop_queue(queue)
        for exchange in list(self.model.exchanges(vhost.name)):
            if self._is_there(exchange):
                self._drop_exchange(exchange)
        self._drop_permissions(lambda permission: permission.vhost == vhost.name)
        self._drop_topic_permissions(lambda permission: permission.vhost == vhost.name)
        for policy in list(self.model.policies(vhost.name)):
            self._drop_policy(policy)
        self.model.remove_vhost(vhost)
        self._events.append(c.Deleted(vhost))
        return c.Done("deleted", vhost)

    def _update_vhost(self, command: c.UpdateVirtualHost) -> c.Reply:
        old = self.model.vhost(command.name)
        if old is None:
            return c.Refusal("not_found", "vhost", command.name)
        changes = {
            field: value
            for field, value in msgspec.structs.asdict(command).items()
            if value is not None
        }
        vhost = msgspec.structs.replace(old, **changes)
        if vhost == old:
            return c.Done("exists", old)
        self.model.replace_vhost(vhost)
        self._events.append(c.Changed(vhost))
        return c.Done("changed", vhost)

    def _put_user(self, command: c.PutUser) -> c.Reply:
        old = self.model.user(command.name)
        password, tags = command.password, command.tags
        if old is not None and command.part == "new":
            return c.Done("exists", old)
        if command.part in ("password", "tags", "limits"):
            if old is None:
                return c.Refusal("not_found", "user", command.name)
            if command.part != "tags":
                tags = old.tags
            if command.part != "password":
                password = old.password
        connections_max, channels_max = command.connections_max, command.channels_max
        if connections_max is None:
            connections_max = NO_LIMIT if old is None else old.connections_max
        if channels_max is None:
            channels_max = NO_LIMIT if old is None else old.channels_max
        loopback_only = old is not None and old.loopback_only
        user = User(command.name, password, tags, loopback_only, connections_max, channels_max)
        if user == old:
            return c.Done("exists", old)
        self.model.put_user(user)
        self._events.append(c.Created(user) if old is None else c.Changed(user))
        return c.Done("created" if old is None else "changed", user)

    def _delete_user(self, command: c.DeleteUser) -> c.Reply:
        user = self.model.user(command.name)
        if user is None:
            return c.Done("absent", None)
        self._drop_permissions(lambda permission: permission.user == user.name)
        self._drop_topic_permissions(lambda permission: permission.user == user.name)
        self.model.remove_user(user)
        self._events.append(c.Deleted(user))
        return c.Done("deleted", user)

    def _set_permission(self, command: c.SetPermission) -> c.Reply:
        if self.model.user(command.user) is None:
            return c.Refusal("not_found", "user", command.user)
        if self.model.vhost(command.vhost) is None:
            return c.Refusal("not_found", "vhost", command.vhost)
        old = self.model.permission(command.user, command.vhost)
        permission = Permission(
            command.user, command.vhost, command.configure, command.write, command.read
        )
        if permission == old:
            return c.Done("exists", old)
        self.model.put_permission(permission)
        self._events.append(c.Created(permission) if old is None else c.Changed(permission))
        return c.Done("created" if old is None else "changed", permission)

    def _clear_permission(self, command: c.ClearPermission) -> c.Reply:
        permission = self.model.permission(command.user, command.vhost)
        if permission is None:
            return c.Done("absent", None)
        self._drop_permissions(lambda other: other is permission)
        return c.Done("deleted", permission)

    def _drop_permissions(self, is_chosen: Callable[[Permission], bool]) -> None:
        for permission in [p for p in self.model.permissions() if is_chosen(p)]:
            self.model.remove_permission(permission)
            self._events.append(c.Deleted(permission))

    def _set_topic_permission(self, command: c.SetTopicPermission) -> c.Reply:
        if self.model.user(command.user) is None:
            return c.Refusal("not_found", "user", command.user)
        if self.model.vhost(command.vhost) is None:
            return c.Refusal("not_found", "vhost", command.vhost)
        old = self.model.topic_permission(command.user, command.vhost, command.exchange)
        permission = TopicPermission(
            command.user, command.vhost, command.exchange, command.write, command.read
        )
        if permission == old:
            return c.Done("exists", old)
        self.model.put_topic_permission(permission)
        self._events.append(c.Created(permission) if old is None else c.Changed(permission))
        return c.Done("created" if old is None else "changed", permission)

    def _clear_topic_permission(self, command: c.ClearTopicPermission) -> c.Reply:
        gone = self._drop_topic_permissions(
            lambda permission: (
                (permission.user, permission.vhost) == (command.user, command.vhost)
                and command.exchange in (None, permission.exchange)
            )
        )
        return c.Done("deleted", gone[0]) if gone else c.Done("absent", None)

    def _drop_topic_permissions(
        self, is_chosen: Callable[[TopicPermission], bool]
    ) -> list[TopicPermission]:
        chosen = [p for p in self.model.topic_permissions() if is_chosen(p)]
        for permission in chosen:
            self.model.remove_topic_permission(permission)
            self._events.append(c.Deleted(permission))
        return chosen

    # Policies.

    def _set_policy(self, command: c.SetPolicy) -> c.Reply:
        if self.model.vhost(command.vhost) is None:
            return c.Refusal("not_found", "vhost", command.vhost)
        policy = Policy(
            command.vhost,
            command.is_operator,
            command.name,
            command.pattern,
            command.apply_to,
            command.priority,
            command.definition,
        )
        old = self.model.policy(policy.vhost, policy.name, is_operator=policy.is_operator)
        if policy == old:
            return c.Done("exists", old)
        self.model.put_policy(policy)
        self._events.append(c.Created(policy) if old is None else c.Changed(policy))
        return c.Done("created" if old is None else "changed", policy)

    def _clear_policy(self, command: c.ClearPolicy) -> c.Reply:
        policy = self.model.policy(command.vhost, command.name, is_operator=command.is_operator)
        if policy is None:
            return c.Done("absent", None)
        self._drop_policy(policy)
        return c.Done("deleted", policy)

    def _drop_policy(self, policy: Policy) -> None:
        self.model.remove_policy(policy)
        self._events.append(c.Deleted(policy))

    # Exchanges and bindings.

    def _declare_exchange(self, command: c.DeclareExchange) -> c.Reply:
        if self.model.vhost(command.vhost) is None:
            return c.Refusal("not_found", "vhost", command.vhost)
        old = self.model.exchange(command.vhost, command.name)
        if old is not None:
            return c.Done("exists", old)
        exchange = Exchange(
            command.vhost,
            command.name,
            command.type,
            command.durable,
            command.auto_delete,
            command.internal,
            command.arguments,
        )
        self.model.add_exchange(exchange)
        self._events.append(c.Created(exchange))
        return c.Done("created", exchange)

    def _delete_exchange(self, command: c.DeleteExchange) -> c.Reply:
        if command.name in PREDECLARED_NAMES:
            return c.Refusal("not_allowed", "exchange", command.name, command.vhost)
        exchange = self.model.exchange(command.vhost, command.name)
        if exchange is None:
            return c.Done("absent", None)
        if command.if_unused and self.model.bindings_from(exchange.vhost, exchange.name):
            return c.Refusal("in_use", "exchange", exchange.name, exchange.vhost)
        self._drop_exchange(exchange)
        return c.Done("deleted", exchange)

    def _bind(self, command: c.Bind) -> c.Reply:
        vhost, source, destination = command.vhost, command.source, command.destination
        # RabbitMQ names the source first when both ends are missing.
        if self.model.exchange(vhost, source) is None:
            return c.Refusal("not_found", "exchange", source, vhost)
        if command.kind == "queue":
            if self.model.queue(vhost, destination) is None:
                return c.Refusal("not_found", "queue", destination, vhost)
        elif self.model.exchange(vhost, destination) is None:
            return c.Refusal("not_found", "exchange", destination, vhost)
        if source == "" or (command.kind == "exchange" and destination == ""):
            return c.Refusal("not_allowed", "exchange", "", vhost)
        binding = Binding(
            vhost, source, command.kind, destination, command.routing_key, command.arguments
        )
        if self.model.has_binding(binding):
            return c.Done("exists", binding)
        self.model.add_binding(binding)
        self._events.append(c.Created(binding))
        return c.Done("created", binding)

    def _unbind(self, command: c.Unbind) -> c.Reply:
        binding = Binding(
            command.vhost,
            command.source,
            command.kind,
            command.destination,
            command.routing_key,
            command.arguments,
        )
        if not self.model.has_binding(binding):
            return c.Done("absent", None)
        self._drop_bindings([binding])
        return c.Done("deleted", binding)

    def _drop_exchange(self, exchange: Exchange) -> None:
        to_it = list(self.model.bindings_to(exchange.vhost, "exchange", exchange.name))
        for binding in list(self.model.bindings_from(exchange.vhost, exchange.name)):
            self._drop_binding(binding)
        self.model.remove_exchange(exchange)
        self._drop_bindings([b for b in to_it if self.model.has_binding(b)])
        self._events.append(c.Deleted(exchange))

    def _drop_bindings(self, bindings: list[Binding]) -> None:
        """Remove `bindings`, and the auto-delete exchanges whose last binding went with them.

        An exchange that goes takes the bindings that end in it, which may take further exchanges.
        """
        pending = list(bindings)
        while pending:
            binding = pending.pop()
            if not self.model.has_binding(binding):  # went with an exchange meanwhile
                continue
            self._drop_binding(binding)
            source = self.model.exchange(binding.vhost, binding.source)
            assert source is not None  # an exchange goes only after the bindings from it
            if source.auto_delete and not self.model.bindings_from(source.vhost, source.name):
                pending.extend(self.model.bindings_to(source.vhost, "exchange", source.name))
                self.model.remove_exchange(source)
                self._events.append(c.Deleted(source))

    def _drop_binding(self, binding: Binding) -> None:
        self.model.remove_binding(binding)
        self._events.append(c.Deleted(binding))

    # Queues.

    def _declare_queue(self, command: c.DeclareQueue) -> c.Reply:
        cluster = self.model.cluster
        vhost = self.model.vhost(command.vhost)
        if cluster is None or vhost is None:
            return c.Refusal("not_found", "vhost", command.vhost)
        node = self.model.node(command.node)
        if node is None:
            return c.Refusal("not_found", "node", str(command.node))
        if node.boot != command.boot:
            # A command of an earlier start that comes late: nobody would ever remove its queue.
            return c.Refusal("stale", "node", node.name)
        old = self.model.queue(command.vhost, command.name)
        if old is not None:
            return c.Done("exists", old)
        if vhost.queues_max != NO_LIMIT and (
            len(self.model.queues(command.vhost)) >= vhost.queues_max
        ):
            return c.Refusal("limit", "queue", command.name, command.vhost, vhost.queues_max)
        shard = 0
        if is_replicated(
            durable=command.durable, exclusive=command.exclusive, auto_delete=command.auto_delete
        ):
            shards = range(1, cluster.shards + 1)
            shard = pick_shard([len(self.model.queues_in_shard(number)) for number in shards])
        queue = Queue(
            uid=self.model.uid_next,
            vhost=command.vhost,
            name=command.name,
            durable=command.durable,
            exclusive=command.exclusive,
            auto_delete=command.auto_delete,
            arguments=command.arguments,
            shard=shard,
            home=0 if shard else command.node,
            boot=0 if shard else command.boot,
            owner=command.owner if command.exclusive else 0,
        )
        self.model.uid_next += 1
        self.model.add_queue(queue)
        self._events.append(c.Created(queue))
        return c.Done("created", queue)

    def _delete_queue(self, command: c.DeleteQueue) -> c.Reply:
        queue = self.model.queue(command.vhost, command.name)
        if queue is None or queue.uid != command.uid:
            return c.Done("absent", None)
        self._drop_queue(queue)
        return c.Done("deleted", queue)

    def _drop_queue(self, queue: Queue) -> None:
        self._drop_bindings(list(self.model.bindings_to(queue.vhost, "queue", queue.name)))
        self.model.remove_queue(queue)
        self._events.append(c.Deleted(queue))


def _start(node: Node) -> tuple[int, int]:
    """Return what grows with each start of a node.

    The boot alone may not: it comes from the clock, and a new data folder may be on a machine
    whose clock is behind.
    """
    return node.incarnation, node.boot
