"""Direct reply-to: replies go from the default exchange to requesters, past all queues.

A requester consumes from the pseudo-queue `amq.rabbitmq.reply-to` and names it as `reply_to`; its
node puts a name in the place that leads back to that channel alone: the node, a number, and a
secret.  What is published to such a name goes to the channel at once, over the link if it is on
another node.  Nothing is stored, replicated or sent again: a reply whose requester is gone is
unroutable, and one that is on a link when it breaks is lost.

A run of replies comes home when the requester's node has it, so that who answers is slowed down by
the links, and never by a requester that does not read: beyond `WAITING_BYTES_MAX` that one loses
its replies.
"""

from __future__ import annotations

import logging
import re
from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING, Final, Protocol

from leveret.amqp.delivery import DeliverEncoder
from leveret.transport import NodeId

from .messages import MESSAGE_BYTES, Returned, tell

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from leveret.actors import Ref

    from .messages import ConnectionMessage, PublishRun

log = logging.getLogger(__name__)

REPLY_QUEUE: Final = "amq.rabbitmq.reply-to"
PREFIX: Final = f"{REPLY_QUEUE}."

CHANNEL: Final = "reply"
"""The links' channel on which replies go to their requesters' nodes."""

WAITING_BYTES_MAX: Final = 16 << 20
"""Replies that wait for the connection of one requester; above that further ones are dropped."""

_KEY: Final = re.compile(r"([0-9]{1,5})\.([0-9]+\.[A-Za-z0-9_-]+)")


class Links(Protocol):
    """What is needed of the links to the other nodes."""

    def send(self, node: NodeId, channel: str, payload: object) -> bool:
        """Queue a message; False when the link is down."""

    def on_message(self, channel: str, handler: Callable[[NodeId, object], None]) -> None:
        """Have `handler` called with what comes on `channel`."""

    def on_down(self, handler: Callable[[NodeId], None]) -> None:
        """Call when a link broke."""


class ReplyConsumer:
    """The consumer of one channel's replies."""

    __slots__ = ("channel", "connection", "encoder", "key", "name", "tag", "vhost", "waiting_bytes")

    def __init__(
        self, connection: Ref[ConnectionMessage], channel: int, *, tag: str, vhost: str, key: str
    ) -> None:
        self.connection = connection
        self.channel = channel
        self.tag = tag
        self.vhost = vhost
        self.key = key
        """Node, number and secret: what other names do not have behind `PREFIX`."""
        self.name = PREFIX + key
        self.encoder = DeliverEncoder(channel, tag)
        self.waiting_bytes = 0
        """Replies in the connection's mailbox."""


class Replies:
    """To the connection: replies for one of its channels."""

    __slots__ = ("consumer", "records", "size_bytes")

    def __init__(self, consumer: ReplyConsumer, records: Sequence[bytes], size_bytes: int) -> None:
        self.consumer = consumer
        self.records = records
        self.size_bytes = size_bytes


class ReplyDesk:
    """Where a node's requesters are known by the names that lead to them."""

    def __init__(self, *, node: int, links: Links) -> None:
        self._node = node
        self._links = links
        self._consumers: dict[tuple[str, str], ReplyConsumer] = {}
        self._number = 0
        self._asked: dict[int, tuple[int, Callable[[bool], None]]] = {}
        """By number, who waits for the answer of which node."""
        self._questions = 0
        links.on_message(CHANNEL, self._peer_says)
        links.on_down(self._link_down)

    def add(
        self,
        connection: Ref[ConnectionMessage],
        channel: int,
        *,
        tag: str,
        vhost: str,
        secret: bytes,
    ) -> ReplyConsumer:
        """Have replies go to a channel, until `forget`.

        secret: random, so that nobody answers who was not asked.
        """
        self._number += 1
        key = f"{self._node}.{self._number}.{urlsafe_b64encode(secret).decode().rstrip('=')}"
        consumer = ReplyConsumer(connection, channel, tag=tag, vhost=vhost, key=key)
        self._consumers[vhost, key] = consumer
        return consumer

    def forget(self, consumer: ReplyConsumer) -> None:
        """Let the consumer's name lead nowhere."""
        self._consumers.pop((consumer.vhost, consumer.key), None)

    def publish(self, vhost: str, run: PublishRun) -> None:
        """Bring a run of replies to its requester, and then home."""

        def done(is_there: bool) -> None:  # noqa: FBT001 - the answer itself
            if run.mandatory and not is_there:
                tell(run.connection, Returned(run))
            run.go_home()

        self._bring(vhost, run.routing_key, run.records, done)

    def look_up(self, vhost: str, name: str, done: Callable[[bool], None]) -> None:
        """Have `done` told whether `name` leads to a requester."""
        self._bring(vhost, name, (), done)

    def _bring(
        self, vhost: str, name: str, records: Sequence[bytes], done: Callable[[bool], None]
    ) -> None:
        key = name.removeprefix(PREFIX)
        found = _KEY.fullmatch(key)
        if found is None:
            done(False)
            return
        node = int(found[1])
        if node == self._node:
            done(self._deliver(vhost, key, records))
            return
        self._questions += 1
        number = self._questions
        self._asked[number] = (node, done)
        if not self._links.send(NodeId(node), CHANNEL, ("bring", number, vhost, key, records)):
            del self._asked[number]
            done(False)

    def _deliver(self, vhost: str, key: str, records: Sequence[bytes]) -> bool:
        """Hand replies (or none) to the requester; False if it does not get them."""
        consumer = self._consumers.get((vhost, key))
        if consumer is None:
            return False
        if not records:
            return True
        if consumer.waiting_bytes > WAITING_BYTES_MAX:
            log.warning(
                "replies dropped: their requester does not read",
                extra={"vhost": vhost, "channel": consumer.channel, "replies": len(records)},
            )
            return False
        size_bytes = sum(map(len, records)) + MESSAGE_BYTES * len(records)
        consumer.waiting_bytes += size_bytes
        return tell(consumer.connection, Replies(consumer, records, size_bytes))

    def _peer_says(self, node: NodeId, payload: object) -> None:
        match payload:
            case ("bring", int(number), str(vhost), str(key), tuple(records)):
                is_there = self._deliver(vhost, key, records)
                self._links.send(node, CHANNEL, ("brought", number, is_there))
            case ("brought", int(number), bool(is_there)):
                _, done = self._asked.pop(number, (0, None))
                if done is not None:
                    done(is_there)
            case _:
                pass

    def _link_down(self, node: int) -> None:
        for number in [n for n, (asked, _) in self._asked.items() if asked == node]:
            self._asked.pop(number)[1](False)
