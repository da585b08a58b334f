"""Definitions in RabbitMQ's format: what a file says is to be there.

`leveret ctl import_definitions` reads such a file, and each start the one that `node.definitions`
names, before clients are served.  Both merge it into the catalog: what is there stays, users,
permissions and policies that the file names are created or replaced, the rest is created if it is
missing.
The catalog is replicated, so one node of a cluster needs the file.

    {"vhosts": [{"name": "orders"}],
     "users": [{"name": "ada", "password": "…", "tags": "administrator"}],
     "permissions": [{"user": "ada", "vhost": "orders",
                      "configure": ".*", "write": ".*", "read": ".*"}],
     "policies": [{"name": "short", "vhost": "orders", "pattern": "^till",
                   "definition": {"max-length": 1000}, "apply-to": "queues", "priority": 0}],
     "exchanges": [{"name": "sales", "vhost": "orders", "type": "topic"}],
     "queues": [{"name": "till", "vhost": "orders", "arguments": {"x-message-ttl": 60000}}],
     "bindings": [{"source": "sales", "vhost": "orders", "destination": "till",
                   "destination_type": "queue", "routing_key": "#"}]}

Instead of `password`, a user may have `password_hash` and `hashing_algorithm` as RabbitMQ exports
them.  What the file has beyond that is named and left out.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, cast

import msgspec

from leveret.amqp.errors import AmqpError
from leveret.amqp.fields import encode_table
from leveret.broker.access import check_pattern, hash_password, import_password_hash
from leveret.broker.arguments import QUEUE_TYPES, check_exchange, check_queue
from leveret.broker.routing.exchange_types import DELAYED, EXCHANGE_TYPES
from leveret.broker.routing.headers import check_arguments as check_header_arguments
from leveret.catalog.commands import (
    AddVirtualHost,
    Bind,
    DeclareExchange,
    DeclareQueue,
    PutUser,
    SetPermission,
    SetPolicy,
    SetTopicPermission,
    UpdateVirtualHost,
)
from leveret.catalog.model import PasswordHash

from .limits import limit_of
from .policy_definitions import ParameterDefinition, PolicyDefinition

if TYPE_CHECKING:
    from leveret.amqp.fields import Value

DefinitionCommand = (
    AddVirtualHost
    | UpdateVirtualHost
    | PutUser
    | SetPermission
    | SetTopicPermission
    | SetPolicy
    | DeclareExchange
    | DeclareQueue
    | Bind
)

Limits = dict[str, int] | list[tuple[str, int]]
"""Numbers by the names of limits; RabbitMQ writes both forms."""

ABOUT_THE_FILE: Final = frozenset(
    {
        "rabbit_version",
        "rabbitmq_version",
        "rabbitmq_definition_format",
        "product_name",
        "product_version",
        "original_cluster_name",
        "explanation",
    }
)
"""Parts that say nothing about what is to be there."""

OF_ONE_VHOST: Final = ("parameters", "policies", "exchanges", "queues", "bindings")
"""Parts of a file of one virtual host, which does not name it."""


class DefinitionsError(Exception):
    """The definitions cannot be used; the text says why."""


class Start(NamedTuple):
    """The start of a node at which queues come to live that are not replicated."""

    node: int
    boot: int


class Metadata(msgspec.Struct):
    """What is told of a virtual host; RabbitMQ writes no tags as ""."""

    description: str = ""
    tags: str | list[str] = ""
    default_queue_type: str | None = None
    protected_from_deletion: bool = False


class VirtualHostDefinition(msgspec.Struct):
    """A virtual host to be there."""

    name: str
    metadata: Metadata = msgspec.field(default_factory=Metadata)
    limits: Limits = {}

    @property
    def title(self) -> str:
        return f"virtual host {self.name!r}"

    def command(self, _: Start) -> AddVirtualHost:
        return AddVirtualHost(self.name)

    @property
    def properties(self) -> VirtualHostProperties:
        return VirtualHostProperties(self)


class VirtualHostProperties:
    """What a virtual host is to be like, once it is there."""

    def __init__(self, vhost: VirtualHostDefinition) -> None:
        self._vhost = vhost
        self.title = f"properties of {vhost.title}"

    def command(self, _: Start) -> UpdateVirtualHost:
        metadata, limits = self._vhost.metadata, dict(self._vhost.limits)
        return UpdateVirtualHost(
            self._vhost.name,
            metadata.description,
            tag_names(metadata.tags),
            # "undefined" is how some releases say that there is none.
            metadata.default_queue_type if metadata.default_queue_type in QUEUE_TYPES else "",
            metadata.protected_from_deletion,
            connections_max=limit_of(limits.get("max-connections")),
            queues_max=limit_of(limits.get("max-queues")),
        )


class UserDefinition(msgspec.Struct):
    """A user to be there; without a password nobody can log in as it."""

    name: str
    password: str | None = None
    password_hash: str | None = None
    hashing_algorithm: str = "rabbit_password_hashing_sha256"
    tags: str | list[str] = ""
    limits: Limits = {}

    @property
    def title(self) -> str:
        return f"user {self.name!r}"

    def command(self, _: Start) -> PutUser:
        limits = dict(self.limits)
        return PutUser(
            self.name,
            self.record(),
            tag_names(self.tags),
            "all",
            limit_of(limits.get("max-connections")),
            limit_of(limits.get("max-channels")),
        )

    def record(self) -> PasswordHash | None:
        """Return the password as the catalog keeps it; hashing takes some 50 ms.

        Raises:
            ValueError: the hash is neither one of RabbitMQ's nor one of ours.
        """
        if self.password:
            return hash_password(self.password.encode(), secrets.token_bytes(16))
        if self.password_hash:
            return import_password_hash(self.hashing_algorithm, self.password_hash)
        return None


class PermissionDefinition(msgspec.Struct):
    """A user's permission in a virtual host: three regular expressions over names."""

    user: str
    vhost: str
    configure: str
    write: str
    read: str

    @property
    def title(self) -> str:
        return f"permission of {self.user!r} in {self.vhost!r}"

    def command(self, _: Start) -> SetPermission:
        for pattern in (self.configure, self.write, self.read):
            check_pattern(pattern)
        return SetPermission(self.user, self.vhost, self.configure, self.write, self.read)


class TopicPermissionDefinition(msgspec.Struct):
    """Which routing keys a user may use with a topic exchange: two regular expressions."""

    user: str
    vhost: str
    exchange: str
    write: str
    read: str

    @property
    def title(self) -> str:
        return f"topic permission of {self.user!r} for {self.exchange!r} in {self.vhost!r}"

    def command(self, _: Start) -> SetTopicPermission:
        for pattern in (self.write, self.read):
            check_pattern(pattern)
        return SetTopicPermission(self.user, self.vhost, self.exchange, self.write, self.read)


class ExchangeDefinition(msgspec.Struct):
    """An exchange to be there."""

    name: str
    vhost: str
    type: str
    durable: bool = True
    auto_delete: bool = False
    internal: bool = False
    arguments: dict[str, Any] = {}

    @property
    def title(self) -> str:
        return f"exchange {self.name!r} in {self.vhost!r}"

    @property
    def is_supported(self) -> bool:
        return self.type in EXCHANGE_TYPES or self.type == DELAYED

    def command(self, _: Start) -> DeclareExchange:
        check_exchange(self.type, self.arguments)
        return DeclareExchange(
            self.vhost,
            self.name,
            self.type,
            self.durable,
            self.auto_delete,
            self.internal,
            _encoded(self.arguments),
        )


class QueueDefinition(msgspec.Struct):
    """A queue to be there; `type` counts if the arguments have no `x-queue-type`."""

    name: str
    vhost: str
    durable: bool = True
    auto_delete: bool = False
    arguments: dict[str, Any] = {}
    type: str = "classic"

    @property
    def title(self) -> str:
        return f"queue {self.name!r} in {self.vhost!r}"

    @property
    def real_type(self) -> object:
        return self.arguments.get("x-queue-type", self.type)

    @property
    def is_supported(self) -> bool:
        return self.real_type in QUEUE_TYPES

    def command(self, start: Start) -> DeclareQueue:
        arguments = self.arguments
        if self.type != "classic":
            arguments = {**arguments, "x-queue-type": self.real_type}
        check_queue(
            arguments, name=self.name, vhost=self.vhost, durable=self.durable, exclusive=False
        )
        return DeclareQueue(
            self.vhost,
            self.name,
            self.durable,
            False,  # exclusive to a connection is no queue of a file
            self.auto_delete,
            _encoded(arguments),
            start.node,
            start.boot,
            0,
        )


class BindingDefinition(msgspec.Struct):
    """A binding to be there."""

    source: str
    vhost: str
    destination: str
    destination_type: Literal["queue", "exchange"]
    routing_key: str = ""
    arguments: dict[str, Any] = {}

    @property
    def title(self) -> str:
        return f"binding of {self.destination!r} to {self.source!r} in {self.vhost!r}"

    def command(self, _: Start) -> Bind:
        check_header_arguments(self.arguments)
        return Bind(
            self.vhost,
            self.source,
            self.destination_type,
            self.destination,
            self.routing_key,
            _encoded(dict(sorted(self.arguments.items()))),
        )


Definition = (
    VirtualHostDefinition
    | VirtualHostProperties
    | UserDefinition
    | PermissionDefinition
    | TopicPermissionDefinition
    | PolicyDefinition
    | ParameterDefinition
    | ExchangeDefinition
    | QueueDefinition
    | BindingDefinition
)


class Definitions(msgspec.Struct, omit_defaults=True):
    """The parts of a file of definitions that are taken over."""

    vhosts: list[VirtualHostDefinition] = []
    users: list[UserDefinition] = []
    permissions: list[PermissionDefinition] = []
    topic_permissions: list[TopicPermissionDefinition] = []
    policies: list[PolicyDefinition] = []
    parameters: list[ParameterDefinition] = []
    exchanges: list[ExchangeDefinition] = []
    queues: list[QueueDefinition] = []
    bindings: list[BindingDefinition] = []

    def __iter__(self) -> Iterator[Definition]:
        """Give all definitions in the order in which they need each other."""
        yield from self.vhosts
        yield from (vhost.properties for vhost in self.vhosts)
        yield from self.users
        yield from self.permissions
        yield from self.topic_permissions
        yield from self.policies
        yield from self.parameters
        yield from self.exchanges
        yield from self.queues
        yield from self.bindings

    def commands(self, start: Start) -> Sequence[DefinitionCommand]:
        """Return what makes the catalog so, in the order of the definitions; hashes passwords.

        Raises:
            DefinitionsError: something cannot be used; the text names it.
        """
        return [_command(definition, start) for definition in self]

    def supported(self) -> tuple[Definitions, list[str]]:
        """Return what this version can make, and in words what it leaves out."""
        exchanges = [exchange for exchange in self.exchanges if exchange.is_supported]
        queues = [queue for queue in self.queues if queue.is_supported]
        gone = {("exchange", x.vhost, x.name) for x in self.exchanges if not x.is_supported}
        gone |= {("queue", q.vhost, q.name) for q in self.queues if not q.is_supported}
        bindings = [
            b
            for b in self.bindings
            if ("exchange", b.vhost, b.source) not in gone
            and (b.destination_type, b.vhost, b.destination) not in gone
        ]
        left_out = [f"{x.title}, of type {x.type!r}" for x in self.exchanges if not x.is_supported]
        left_out += [
            f"{q.title}, of type {q.real_type!r}" for q in self.queues if not q.is_supported
        ]
        if len(bindings) < len(self.bindings):
            left_out.append(f"{len(self.bindings) - len(bindings)} bindings of these")
        parameters = [parameter for parameter in self.parameters if parameter.is_supported]
        left_out += [one.title for one in self.parameters if not (one.is_supported or one.is_said)]
        kept = Definitions(
            self.vhosts,
            self.users,
            self.permissions,
            self.topic_permissions,
            self.policies,
            parameters,
            exchanges,
            queues,
            bindings,
        )
        return kept, left_out


def read_definitions(path: Path) -> tuple[Definitions, list[str]]:
    """Return what a file of definitions says that can be made, and in words what it leaves out.

    Raises:
        DefinitionsError: it cannot be read, or is not in the format.
    """
    try:
        octets = path.read_bytes()
    except OSError as error:
        raise DefinitionsError(f"{path} cannot be read: {error.strerror}") from error
    return decode_definitions(octets, str(path))


def placed_in(vhost: str, octets: bytes, name: str) -> bytes:
    """Return the text of a file called `name` with all that it holds in virtual host `vhost`.

    Raises:
        DefinitionsError: it is not in the format, or it is one of a whole cluster.
    """
    try:
        parts = msgspec.json.decode(octets, type=dict[str, Any])
        others = sorted(parts.keys() - ABOUT_THE_FILE - set(OF_ONE_VHOST))
        if others:
            raise DefinitionsError(
                f"{name} is not of one virtual host: it has {', '.join(others)};"
                " import it without --vhost"
            )
        placed = {
            part: [{**one, "vhost": vhost} for one in content] if part in OF_ONE_VHOST else content
            for part, content in parts.items()
        }
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError) as error:
        raise DefinitionsError(f"{name} is not a file of definitions: {error}") from error
    return msgspec.json.encode(placed)


def decode_definitions(octets: bytes, name: str) -> tuple[Definitions, list[str]]:
    """Return what the text of a file called `name` says, likewise.

    Raises:
        DefinitionsError: it is not in the format.
    """
    try:
        parts = msgspec.json.decode(octets, type=dict[str, msgspec.Raw])
        definitions = msgspec.json.decode(octets, type=Definitions)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DefinitionsError(f"{name} is not a file of definitions: {error}") from error
    kept, left_out = definitions.supported()
    unknown = sorted(parts.keys() - ABOUT_THE_FILE - set(Definitions.__struct_fields__))
    for part in unknown:
        content = msgspec.json.decode(parts[part])
        if content:
            count = f" ({len(content)})" if isinstance(content, list | dict) else ""
            left_out.append(f"{part}{count}")
    return kept, left_out


def tag_names(tags: str | list[str]) -> tuple[str, ...]:
    """Return tags; RabbitMQ writes them with commas, or as a list."""
    if isinstance(tags, str):
        return tuple(tag.strip() for tag in tags.split(",") if tag.strip())
    return tuple(tags)


def _command(definition: Definition, start: Start) -> DefinitionCommand:
    try:
        return definition.command(start)
    except AmqpError as error:
        reason = error.reply_text.partition(" - ")[2] or error.reply_text
    except (ValueError, TypeError) as error:
        reason = str(error)
    raise DefinitionsError(f"{definition.title}: {reason}")


def _encoded(arguments: Mapping[str, object]) -> bytes:
    return encode_table(cast("Mapping[str, Value]", arguments))
