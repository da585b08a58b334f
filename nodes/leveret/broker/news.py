"""The event exchange: what happens in the cluster, told on `amq.rabbitmq.event` in host `/`.

Keys and headers are those of RabbitMQ's plugin; the body is empty.  Each event is told by one
node.  Of a client it is the node that the client is at.  Changes of the catalog are seen by all
nodes, and the one that leads it tells of them: it alone also knows of those that nobody asked for,
such as the queues of a node that is lost.  So around a change of that leader an event may come
twice or not at all, and nothing is told of who made the change.

Where nothing is bound to the exchange, it costs one look at a dict for each event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from leveret.amqp.fields import Long
from leveret.amqp.properties import Properties
from leveret.broker.arguments import decode_arguments
from leveret.broker.routing.headers import erlang_term
from leveret.broker.wire_types import wire_type
from leveret.catalog.commands import Changed, Created, Deleted, Restored
from leveret.catalog.model import (
    NO_LIMIT,
    Binding,
    Exchange,
    Permission,
    Policy,
    Queue,
    TopicPermission,
    User,
    VirtualHost,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from leveret.amqp.fields import Value
    from leveret.broker.announcer import Announcer
    from leveret.catalog import Catalog
    from leveret.catalog.commands import Event
    from leveret.catalog.model import Entity

EVENT_VHOST: Final = "/"
EVENT_EXCHANGE: Final = "amq.rabbitmq.event"
PERSISTENT: Final = 2

E = TypeVar("E")

Facts = dict[str, "Value"]


class News:
    """Tells of what happens, for one node."""

    def __init__(
        self, catalog: Catalog, announcer: Announcer, *, node: int, now_ms: Callable[[], int]
    ) -> None:
        self._catalog = catalog
        self._announcer = announcer
        self._node = node
        self._now_ms = now_ms
        self._is_leader: Callable[[], bool] | None = None
        self._users: dict[str, User] = {}
        self._vhosts: dict[str, VirtualHost] = {}
        """As they were before a change, which says no more than what is there now."""
        catalog.on_change(self._catalog_changed)

    def open(self, is_leader: Callable[[], bool]) -> None:
        """Begin: what was in the catalog's log before the node served is no news.

        is_leader: whether this node leads the catalog's group now.
        """
        self._is_leader = is_leader
        self._know()

    @property
    def is_heard(self) -> bool:
        """Whether anybody wants to know."""
        return self._is_leader is not None and self._announcer.is_heard(EVENT_VHOST, EVENT_EXCHANGE)

    def tell(self, key: str, facts: Mapping[str, Value]) -> None:
        """Publish an event, if anybody wants to know."""
        if not self.is_heard:
            return
        now_ms = self._now_ms()
        properties = Properties(
            headers={**facts, "timestamp_in_ms": Long(now_ms)},
            timestamp=now_ms // 1000,
            delivery_mode=PERSISTENT,
        )
        self._announcer.publish(EVENT_VHOST, EVENT_EXCHANGE, key, properties)

    def tell_of_node(self, key: str, facts: Mapping[str, Value]) -> None:
        """Publish an event that names this node."""
        if self.is_heard:
            node = self._catalog.model.node(self._node)
            self.tell(key, {**facts, "node": "" if node is None else node.name})

    def _catalog_changed(self, event: Event) -> None:
        if self._is_leader is None:
            return
        if isinstance(event, Restored):
            self._know()
            return
        if self.is_heard and self._is_leader():
            for key, facts in self._told(event):
                self.tell(key, facts)
        entity = event.entity
        if isinstance(entity, User):
            _keep(self._users, entity.name, None if isinstance(event, Deleted) else entity)
        elif isinstance(entity, VirtualHost):
            _keep(self._vhosts, entity.name, None if isinstance(event, Deleted) else entity)

    def _know(self) -> None:
        model = self._catalog.model
        self._users = {user.name: user for user in model.users()}
        self._vhosts = {vhost.name: vhost for vhost in model.vhosts()}

    def _told(self, event: Created | Changed | Deleted) -> Iterator[tuple[str, Facts]]:
        match event:
            case Changed(User() as user):
                yield from _changes_of_user(self._users.get(user.name), user)
            case Changed(VirtualHost() as vhost):
                yield from _changes_of_vhost(self._vhosts.get(vhost.name), vhost)
            case Deleted():
                subject = _subject(event.entity)
                if subject is not None:
                    verb = "cleared" if subject == "policy" else "deleted"
                    yield f"{subject}.{verb}", _identity(event.entity)
            case Created() | Changed():
                subject = _subject(event.entity)
                if subject is not None:
                    # RabbitMQ says so of a permission that replaces another one, too.
                    verb = "set" if subject == "policy" else "created"
                    yield f"{subject}.{verb}", _identity(event.entity) | _details(event.entity)


def _subject(entity: Entity) -> str | None:
    """Return what the keys of events about it begin with; None: there are no events about it."""
    match entity:
        case Queue():
            return "queue"
        case Exchange():
            return "exchange"
        case Binding():
            return "binding"
        case User():
            return "user"
        case VirtualHost():
            return "vhost"
        case Permission():
            return "permission"
        case TopicPermission():
            return "topic.permission"
        case Policy():
            return "policy"
        case _:
            return None


def _identity(entity: Entity) -> Facts:
    """Return the facts that say which one it is."""
    match entity:
        case Queue() | Exchange() | Policy():
            return {"name": entity.name, "vhost": entity.vhost}
        case Binding():
            return {
                "source_name": entity.source,
                "source_kind": "exchange",
                "destination_name": entity.destination,
                "destination_kind": entity.kind,
                "routing_key": entity.routing_key,
                "arguments": _terms(entity.arguments),
                "vhost": entity.vhost,
            }
        case User() | VirtualHost():
            return {"name": entity.name}
        case Permission():
            return {"user": entity.user, "vhost": entity.vhost}
        case TopicPermission():
            return {"user": entity.user, "vhost": entity.vhost, "exchange": entity.exchange}
        case _:
            return {}


def _details(entity: Entity) -> Facts:
    """Return the facts that say what it is like."""
    match entity:
        case Queue():
            return {
                "durable": entity.durable,
                "auto_delete": entity.auto_delete,
                "exclusive": entity.exclusive,
                "arguments": _terms(entity.arguments),
            }
        case Exchange():
            return {
                "type": entity.type,
                "durable": entity.durable,
                "auto_delete": entity.auto_delete,
                "internal": entity.internal,
                "arguments": _terms(entity.arguments),
            }
        case Permission():
            return {
                "configure": entity.configure,
                "write": entity.write,
                "read": entity.read,
            }
        case TopicPermission():
            return {"write": entity.write, "read": entity.read}
        case Policy():
            return {
                "pattern": entity.pattern,
                "apply-to": entity.apply_to,
                "priority": Long(entity.priority),
                "definition": msgspec.json.decode(entity.definition),
            }
        case VirtualHost():
            return {"description": entity.description, "tags": list(entity.tags)}
        case _:
            return {}


def _changes_of_user(before: User | None, user: User) -> Iterator[tuple[str, Facts]]:
    if before is None:
        return
    if before.password != user.password:
        verb = "cleared" if user.password is None else "changed"
        yield f"user.password.{verb}", {"name": user.name}
    if before.tags != user.tags:
        yield "user.tags.set", {"name": user.name, "tags": list(user.tags)}
    limits = (user.connections_max, user.channels_max)
    if (before.connections_max, before.channels_max) != limits:
        yield _limits("user", {"username": user.name}, ("max-connections", "max-channels"), limits)


def _changes_of_vhost(
    before: VirtualHost | None, vhost: VirtualHost
) -> Iterator[tuple[str, Facts]]:
    limits = (vhost.connections_max, vhost.queues_max)
    if before is not None and (before.connections_max, before.queues_max) != limits:
        yield _limits("vhost", {"vhost": vhost.name}, ("max-connections", "max-queues"), limits)


def _limits(
    subject: str, facts: Facts, names: tuple[str, ...], limits: tuple[int, ...]
) -> tuple[str, Facts]:
    most: Facts = {
        name: Long(number) for name, number in zip(names, limits, strict=True) if number != NO_LIMIT
    }
    verb = "set" if most else "cleared"
    return f"{subject}.limits.{verb}", {**facts, "name": "limits", **most}


def _terms(arguments: bytes) -> list[Value]:
    """Return arguments as RabbitMQ's plugin shows them: Erlang terms of name, type and value."""
    return [
        f"{{{erlang_term(name)},{wire_type(value)},{erlang_term(value)}}}"
        for name, value in decode_arguments(arguments).items()
    ]


def _keep(known: dict[str, E], name: str, entity: E | None) -> None:
    if entity is None:
        known.pop(name, None)
    else:
        known[name] = entity
