"""What is in a queue: its messages are shown as its leader sees them, and stay as they are."""

from __future__ import annotations

import base64
import codecs
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from leveret.amqp.definitions import PROPERTIES
from leveret.amqp.errors import AmqpError
from leveret.amqp.events import split_route
from leveret.amqp.properties import Properties
from leveret.broker.queues.peeking import PEEK_MAX, Peek, Place
from leveret.node.plain_tables import plain_table
from leveret.transport import NodeId

from .controls import Arguments, ControlError, Controls
from .queue_leaders import act_here, ask_leader, find_queue

if TYPE_CHECKING:
    from collections.abc import Iterable

    from leveret.broker.queues.peeking import Peeked

    from .admin import Admin
    from .parts import NodeParts

BODY_BYTES_MAX: Final = 4096
"""Of one message in an answer."""
TELL_WITHIN_S: Final = 2.0
"""A node that has not told by then whose consumers hold messages is passed over."""


class PeekArguments(Arguments, frozen=True):
    """Which messages of a queue to show, and how many octets of their bodies."""

    vhost: str
    queue: str
    offset: int = 0
    count: int = 10
    body_bytes: int = 200


class PeekHereArguments(Arguments, frozen=True):
    """The same, of a queue that the asked node leads."""

    uid: int
    offset: int
    count: int
    body_bytes: int
    only_delayed: bool


class HoldersArguments(Arguments, frozen=True):
    """Consumers of a queue on the asked node, by their numbers there."""

    uid: int
    numbers: list[int]


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds an unacknowledged message; connection and channel are called as in the lists.

    The names are None if the consumer's node does not tell. The tag is empty after basic.get.
    """

    node: int
    connection: str | None
    channel: int | None
    consumer_tag: str | None
    since_ms: int


class MessageSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A message; times are in milliseconds since 1970, None if there is none.

    `payload` is the beginning of the body, a text or base64; `payload_bytes` is its whole size.
    """

    position: int
    sequence: int
    state: Place
    redelivered: bool
    delivery_count: int
    due_at_ms: int | None
    expires_at_ms: int | None
    holder: Holder | None
    exchange: str
    routing_key: str
    properties: dict[str, object]
    headers: dict[str, object]
    payload_bytes: int
    payload_encoding: Literal["string", "base64"]
    payload: str


class _HolderHere(msgspec.Struct, frozen=True):
    number: int
    connection: str
    channel: int
    tag: str


def add_message_verbs(controls: Controls, parts: NodeParts, admin: Admin) -> None:
    """Put the verbs into the table."""
    controls.add("peek", PeekArguments, partial(_peek, parts, admin, only_delayed=False))
    controls.add("list_delayed", PeekArguments, partial(_peek, parts, admin, only_delayed=True))
    controls.add("node peek", PeekHereArguments, partial(_peek_here, parts, admin))
    controls.add("node holders", HoldersArguments, partial(_holders_here, parts))


async def _peek(
    parts: NodeParts, admin: Admin, arguments: PeekArguments, *, only_delayed: bool
) -> list[MessageSeen]:
    for name, value, highest in (
        ("offset", arguments.offset, None),
        ("count", arguments.count, PEEK_MAX),
        ("body_bytes", arguments.body_bytes, BODY_BYTES_MAX),
    ):
        if value < 0 or (highest is not None and value > highest):
            limit = "not be negative" if highest is None else f"be 0 to {highest}"
            raise ControlError("refused", f"{name} must {limit}, not {value}")
    queue = await find_queue(parts, arguments.vhost, arguments.queue)
    return await ask_leader(
        parts,
        admin,
        queue,
        "node peek",
        list[MessageSeen],
        offset=arguments.offset,
        count=arguments.count,
        body_bytes=arguments.body_bytes,
        only_delayed=only_delayed,
    )


async def _peek_here(
    parts: NodeParts, admin: Admin, arguments: PeekHereArguments
) -> list[MessageSeen]:
    peeked = await act_here(
        parts,
        arguments.uid,
        Peek(
            offset=arguments.offset,
            count=arguments.count,
            body_bytes=arguments.body_bytes,
            only_delayed=arguments.only_delayed,
        ),
    )
    keys = {one.holder for one in peeked if one.holder is not None}
    known = await _find_holders(admin, arguments.uid, keys)
    return [_seen(one, known) for one in peeked]


async def _find_holders(
    admin: Admin, uid: int, keys: Iterable[tuple[int, int]]
) -> dict[tuple[int, int], _HolderHere]:
    by_node: dict[int, list[int]] = {}
    for node, number in keys:
        by_node.setdefault(node, []).append(number)
    known: dict[tuple[int, int], _HolderHere] = {}
    for node, numbers in by_node.items():
        try:
            told = await admin.ask(
                NodeId(node),
                "node holders",
                list[_HolderHere],
                within_s=TELL_WITHIN_S,
                uid=uid,
                numbers=numbers,
            )
        except ControlError:
            continue
        known |= {(node, one.number): one for one in told}
    return known


async def _holders_here(parts: NodeParts, arguments: HoldersArguments) -> list[_HolderHere]:
    """Return who the consumers are, by the names of the lists of connections and consumers."""
    clients = {id(client.ref): client.session.number for client in parts.listener.clients()}
    found = []
    for number in arguments.numbers:
        consumer = parts.directory.consumer(arguments.uid, number)
        connection = None if consumer is None else clients.get(id(consumer.connection))
        if consumer is not None and connection is not None:
            name = f"{parts.identity.name}.{connection}"
            found.append(_HolderHere(number, name, consumer.channel, consumer.tag or ""))
    return found


def _seen(one: Peeked, known: dict[tuple[int, int], _HolderHere]) -> MessageSeen:
    exchange, routing_key = split_route(one.route)
    properties, headers = _properties(one.header)
    encoding, payload = _text(one.body, is_whole=len(one.body) == one.body_size)
    holder = None
    if one.holder is not None:
        told = known.get(one.holder)
        holder = Holder(
            node=one.holder[0],
            connection=told.connection if told else None,
            channel=told.channel if told else None,
            consumer_tag=told.tag if told else None,
            since_ms=one.held_since_ms,
        )
    return MessageSeen(
        position=one.position,
        sequence=one.sequence,
        state=one.place,
        redelivered=one.redelivered,
        delivery_count=one.returns,
        due_at_ms=one.due_ms or None,
        expires_at_ms=one.expires_ms or None,
        holder=holder,
        exchange=exchange,
        routing_key=routing_key,
        properties=properties,
        headers=headers,
        payload_bytes=one.body_size,
        payload_encoding=encoding,
        payload=payload,
    )


def _properties(header: bytes) -> tuple[dict[str, object], dict[str, object]]:
    """Return the properties that are there, and the headers; none of those that are malformed."""
    decoded = Properties.decode(header)
    properties: dict[str, object] = {}
    for name, _ in PROPERTIES:
        if name != "headers" and (value := getattr(decoded, name)) is not None:
            properties[name] = value
    try:
        return properties, plain_table(decoded.headers or {})
    except AmqpError:
        return properties, {}


def _text(body: bytes, *, is_whole: bool) -> tuple[Literal["string", "base64"], str]:
    """Return the beginning of a body as text if it is one; it may end amid a character."""
    try:
        return "string", codecs.getincrementaldecoder("utf-8")().decode(body, final=is_whole)
    except UnicodeDecodeError:
        return "base64", base64.b64encode(body).decode()
