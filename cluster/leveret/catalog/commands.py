"""What may be asked of the catalog, what it answers, and what it tells its listeners.

A command travels as a version byte and a MessagePack array `[op code, argument, ...]`.
An op code and the order of its arguments never change; a new argument goes to the end, with a
default.
"""

from __future__ import annotations

from typing import Annotated, Final, Generic, Literal, TypeVar

import msgspec

from leveret.catalog.model import (
    ApplyTo,
    Binding,
    Cluster,
    DestinationKind,
    Entity,
    Exchange,
    Node,
    PasswordHash,
    Permission,
    Policy,
    Queue,
    TopicPermission,
    User,
    VirtualHost,
)

VERSION: Final = 1
SHARDS_MAX: Final = 64
ARGUMENTS_BYTES_MAX: Final = 128 * 1024
"""A client's default largest frame: the arguments of one declaration cannot be longer."""

Name = Annotated[str, msgspec.Meta(max_length=255)]
Pattern = Annotated[str, msgspec.Meta(max_length=4096)]
Arguments = Annotated[bytes, msgspec.Meta(max_length=ARGUMENTS_BYTES_MAX)]
NODES_MAX: Final = 2**16 - 1
"""The largest number of a node: it travels in two octets."""

Positive = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
Natural = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
NodeNumber = Annotated[int, msgspec.Meta(ge=1, le=NODES_MAX)]
Limit = Annotated[int, msgspec.Meta(ge=-1, le=2**63 - 1)]
Text = Annotated[str, msgspec.Meta(max_length=4096)]
Tags = Annotated[tuple[Name, ...], msgspec.Meta(max_length=64)]

E_co = TypeVar("E_co", bound=Entity, covariant=True)


class Command(
    msgspec.Struct,
    Generic[E_co],
    frozen=True,
    gc=False,
    array_like=True,
    forbid_unknown_fields=True,
    tag_field="op",  # not on the wire; the default name is a field of DeclareExchange
):
    """A change of the catalog whose answer is about an entity of type `E_co`."""


class Bootstrap(Command[Cluster], frozen=True, gc=False, tag=1):
    """Found the cluster: virtual host `/` and a first administrator, for loopback only.

    The second and later ones change nothing, so every node may send one at its first start.
    """

    cluster_id: Name
    shards: Annotated[int, msgspec.Meta(ge=1, le=SHARDS_MAX)]
    user: Name
    password: PasswordHash


class AddVirtualHost(Command[VirtualHost], frozen=True, gc=False, tag=2):
    """Create a virtual host with the predeclared exchanges, or answer `exists`."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    description: Text = ""
    tags: Tags = ()
    default_queue_type: Name = ""


class DeleteVirtualHost(Command[VirtualHost], frozen=True, gc=False, tag=3):
    """Delete the virtual host with everything in it; refused as not_allowed if it is protected."""

    name: Name


class PutUser(Command[User], frozen=True, gc=False, tag=4):
    """Create or replace a user; `loopback_only` of one that exists stays as it was.

    `part` restricts what may happen, so that two who change the same user do not undo each other:
    "new" answers `exists` for a user that is there, whatever it is like; "password", "tags" and
    "limits" change that alone, and are refused as not_found for a user that is not there.
    A limit that is None stays as it was; one below zero is none.
    """

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    password: PasswordHash | None
    tags: Tags
    part: Literal["all", "new", "password", "tags", "limits"] = "all"
    connections_max: Limit | None = None
    channels_max: Limit | None = None


class DeleteUser(Command[User], frozen=True, gc=False, tag=5):
    """Delete the user and its permissions."""

    name: Name


class SetPermission(Command[Permission], frozen=True, gc=False, tag=6):
    """Create or replace what the user may do in the virtual host."""

    user: Name
    vhost: Name
    configure: Pattern
    write: Pattern
    read: Pattern


class ClearPermission(Command[Permission], frozen=True, gc=False, tag=7):
    """Take from the user every right in the virtual host."""

    user: Name
    vhost: Name


class DeclareExchange(Command[Exchange], frozen=True, gc=False, tag=8):
    """Create the exchange, or answer `exists` with the one of that name, however it differs."""

    vhost: Name
    name: Name
    type: Name
    durable: bool
    auto_delete: bool
    internal: bool
    arguments: Arguments


class DeleteExchange(Command[Exchange], frozen=True, gc=False, tag=9):
    """Delete the exchange; with `if_unused` only if no binding starts from it."""

    vhost: Name
    name: Name
    if_unused: bool


class Bind(Command[Binding], frozen=True, gc=False, tag=10):
    """Create the binding; its fields are as in `Binding`."""

    vhost: Name
    source: Name
    kind: DestinationKind
    destination: Name
    routing_key: Name
    arguments: Arguments


class Unbind(Command[Binding], frozen=True, gc=False, tag=11):
    """Delete the binding, and an auto-delete source that has none left."""

    vhost: Name
    source: Name
    kind: DestinationKind
    destination: Name
    routing_key: Name
    arguments: Arguments


class DeclareQueue(Command[Queue], frozen=True, gc=False, tag=12):
    """Create the queue, or answer `exists` with the one of that name, however it differs.

    `node` and `boot` name the start of the node that asks; `owner` is as in `Queue`.
    """

    vhost: Name
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    durable: bool
    exclusive: bool
    auto_delete: bool
    arguments: Arguments
    node: Positive
    boot: Positive
    owner: Natural


class DeleteQueue(Command[Queue], frozen=True, gc=False, tag=13):
    """Delete the queue of that name if it still is the one with `uid`, else answer `absent`."""

    vhost: Name
    name: Name
    uid: Positive


class RegisterNode(Command[Node], frozen=True, gc=False, tag=14):
    """Tell a start of a node: the first command that it sends.

    What lived in its earlier starts goes: its queues that are not replicated, and,
    if it is the only node, the exchanges that are not durable.
    Refused as stale for an older incarnation, or an older start of the same one; as not_allowed
    for a number that was removed; as in_use for another node's name.
    """

    node: NodeNumber
    name: Name
    addresses: Annotated[tuple[Name, ...], msgspec.Meta(max_length=16)]
    boot: Positive
    peer: Name = ""
    incarnation: Natural = 0


class AdmitNode(Command[Node], frozen=True, gc=False, tag=15):
    """Make an incarnation of a node a member, before its first start registers.

    `node` 0 asks for the next number; asked again for the same name and incarnation it answers
    `exists`. A given number creates that node, or replaces an older incarnation of it (`changed`),
    whose queues that are not replicated go.
    Refused as stale for an older incarnation; as not_allowed for a number that was removed, or if
    no number is left to give; as in_use for another node's name.
    """

    node: Annotated[int, msgspec.Meta(ge=0, le=NODES_MAX)]
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    peer: Name
    incarnation: Positive


class RemoveNode(Command[Node], frozen=True, gc=False, tag=16):
    """Make a node leave for ever: its queues that are not replicated go, its number stays used.

    Refused as not_allowed for the only node.
    """

    node: NodeNumber


class LoseNode(Command[Node], frozen=True, gc=False, tag=17):
    """Take it that start `boot` of a node is gone: its queues that are not replicated go.

    The node stays a member. Answers `changed` if queues went and `exists` if it had none.
    Refused as stale if it has started again since.
    """

    node: NodeNumber
    boot: Positive


class SetTopicPermission(Command[TopicPermission], frozen=True, gc=False, tag=18):
    """Create or replace which routing keys the user may use with the topic exchange."""

    user: Name
    vhost: Name
    exchange: Name
    write: Pattern
    read: Pattern


class ClearTopicPermission(Command[TopicPermission], frozen=True, gc=False, tag=19):
    """Let the user use all routing keys with an exchange again, or with all those of the host.

    `exchange` None means all of them; the answer then is about one of those that went.
    """

    user: Name
    vhost: Name
    exchange: Name | None


class SetPolicy(Command[Policy], frozen=True, gc=False, tag=20):
    """Create or replace the policy of that name and kind; its fields are as in `Policy`."""

    vhost: Name
    is_operator: bool
    name: Name
    pattern: Pattern
    apply_to: ApplyTo
    priority: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
    definition: Arguments


class ClearPolicy(Command[Policy], frozen=True, gc=False, tag=21):
    """Delete the policy of that name and kind."""

    vhost: Name
    is_operator: bool
    name: Name


class UpdateVirtualHost(Command[VirtualHost], frozen=True, gc=False, tag=22):
    """Change properties of the virtual host; those that are None stay as they were.

    A limit below zero is none.
    """

    name: Name
    description: Text | None = None
    tags: Tags | None = None
    default_queue_type: Name | None = None
    is_protected: bool | None = None
    is_traced: bool | None = None
    connections_max: Limit | None = None
    queues_max: Limit | None = None


AnyCommand = (
    Bootstrap
    | AddVirtualHost
    | DeleteVirtualHost
    | PutUser
    | DeleteUser
    | SetPermission
    | ClearPermission
    | DeclareExchange
    | DeleteExchange
    | Bind
    | Unbind
    | DeclareQueue
    | DeleteQueue
    | RegisterNode
    | AdmitNode
    | RemoveNode
    | LoseNode
    | SetTopicPermission
    | ClearTopicPermission
    | SetPolicy
    | ClearPolicy
    | UpdateVirtualHost
)

Outcome = Literal["created", "exists", "changed", "deleted", "absent"]


class Done(msgspec.Struct, Generic[E_co], frozen=True, gc=False):
    """The answer to a command that was carried out.

    `entity` is the one that is there now (`created`, `exists`, `changed`), the one that went
    (`deleted`), or None (`absent`: there was nothing to delete).
    """

    outcome: Outcome
    entity: E_co | None


RefusalKind = Literal[
    "malformed", "version", "not_found", "in_use", "not_allowed", "stale", "limit"
]
Subject = Literal["command", "vhost", "user", "exchange", "queue", "node"]


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """The answer to a command that changed nothing.

    malformed: not a command; version: of a later release; not_found: `subject` `name` is missing;
    in_use: the exchange has bindings, or another node has the name;
    not_allowed: it is the default or a predeclared exchange, a protected virtual host, the only
    node, a node that was removed, or one too many;
    limit: the virtual host has `limit` queues, as many as it may have;
    stale: the node has started again since, or with a new data folder.
    """

    kind: RefusalKind
    subject: Subject
    name: str
    vhost: str = ""
    limit: int = 0


Reply = Done[Entity] | Refusal


class Created(msgspec.Struct, frozen=True, gc=False):
    """`entity` is new."""

    entity: Entity


class Changed(msgspec.Struct, frozen=True, gc=False):
    """`entity` replaces the one with the same identity."""

    entity: Entity


class Deleted(msgspec.Struct, frozen=True, gc=False):
    """`entity` is gone."""

    entity: Entity


class Restored(msgspec.Struct, frozen=True, gc=False):
    """The whole model was replaced by a snapshot: read everything again."""


Event = Created | Changed | Deleted | Restored

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[AnyCommand] = msgspec.msgpack.Decoder(AnyCommand)


def encode(command: Command[Entity]) -> bytes:
    """Return the bytes of `command` for the log."""
    return bytes((VERSION,)) + _encoder.encode(command)


def decode(data: bytes) -> AnyCommand | Refusal:
    """Return the command in `data`, or why it is none; raises for no input."""
    if not data:
        return Refusal("malformed", "command", "empty")
    if data[0] != VERSION:
        return Refusal("version", "command", str(data[0]))
    try:
        return _decoder.decode(memoryview(data)[1:])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        # ValueError: text that is not UTF-8. The detail is the same on every node of one version.
        return Refusal("malformed", "command", str(error))
