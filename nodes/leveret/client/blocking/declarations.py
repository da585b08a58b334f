"""The blocking face of a channel: its queues, exchanges and bindings."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from leveret.amqp import Method, spec
from leveret.client.declarations import name_of
from leveret.client.results import Queue

if TYPE_CHECKING:
    from collections.abc import Mapping

    from leveret.amqp.fields import Value
    from leveret.client.core.channel import ChannelCore, Replies

    from .connection import Connection

M = TypeVar("M", bound=Method)


class Declarations:
    """The part of `Channel` that declares; a robust connection declares all of it again.

    Every method may raise `TimedOut`; what it asked for may happen yet.
    """

    def __init__(self, connection: Connection, core: ChannelCore) -> None:
        self._connection = connection
        self._core = core

    def declare_queue(
        self,
        name: str = "",
        *,
        durable: bool = True,
        exclusive: bool = False,
        auto_delete: bool = False,
        passive: bool = False,
        arguments: Mapping[str, Value] | None = None,
    ) -> Queue:
        """Have a queue; without a name the broker makes one up.

        durable: it outlives the broker's restart, and in a Leveret cluster is replicated.
        exclusive: only this connection may use it, and it goes with it.
        auto_delete: it goes with its last consumer. passive: only look whether there is one.

        Raises:
            PreconditionFailed: there is one with other arguments; `differs` says which.
            NotFound: passive, and there is none. ResourceLocked: it is exclusive to another.
            ChannelClosed, ConnectionClosed: there is nobody to ask.

        Example:
            >>> with connect(url) as connection, connection.channel() as channel:
            ...     queue = channel.declare_queue(exclusive=True)
            ...     print(queue.message_count, queue.name.startswith("amq.gen-"))
            0 True
        """
        answer = self._ask(
            spec.QueueDeclare(
                queue=name,
                durable=durable,
                exclusive=exclusive,
                auto_delete=auto_delete,
                passive=passive,
                arguments=dict(arguments or {}),
            ),
            spec.QueueDeclareOk,
        )
        topology = self._core.connection.topology
        return Queue(answer.queue, answer.message_count, answer.consumer_count, topology)

    def declare_exchange(
        self,
        name: str,
        type: str = "direct",  # noqa: A002 - the specification's name
        *,
        durable: bool = True,
        auto_delete: bool = False,
        internal: bool = False,
        passive: bool = False,
        arguments: Mapping[str, Value] | None = None,
    ) -> None:
        """Have an exchange of a type: direct, fanout, topic, headers.

        auto_delete: it goes with its last binding. internal: only exchanges publish to it.

        Raises:
            PreconditionFailed: there is one with other arguments; `differs` says which.
            NotFound: passive, and there is none.

        Example:
            >>> with connect(url) as connection, connection.channel() as channel:
            ...     channel.declare_exchange("news", "topic")
        """
        self._ask(
            spec.ExchangeDeclare(
                exchange=name,
                type=type,
                durable=durable,
                auto_delete=auto_delete,
                internal=internal,
                passive=passive,
                arguments=dict(arguments or {}),
            ),
            spec.ExchangeDeclareOk,
        )

    def bind_queue(
        self,
        queue: str | Queue,
        exchange: str,
        routing_key: str = "",
        *,
        arguments: Mapping[str, Value] | None = None,
    ) -> None:
        """Have the messages of `exchange` that fit come to `queue`.

        Raises:
            NotFound: one of the two does not exist.

        Example:
            >>> with connect(url) as connection, connection.channel() as channel:
            ...     channel.declare_exchange("news", "topic")
            ...     queue = channel.declare_queue(exclusive=True)
            ...     channel.bind_queue(queue, "news", "field.*")
        """
        self._ask(
            spec.QueueBind(
                queue=name_of(queue),
                exchange=exchange,
                routing_key=routing_key,
                arguments=dict(arguments or {}),
            ),
            spec.QueueBindOk,
        )

    def unbind_queue(
        self,
        queue: str | Queue,
        exchange: str,
        routing_key: str = "",
        *,
        arguments: Mapping[str, Value] | None = None,
    ) -> None:
        """Take a binding back; one that is not there is no error.

        Example:
            >>> with connect(url) as connection, connection.channel() as channel:
            ...     channel.unbind_queue("hello", "amq.topic", "field.*")
        """
        self._ask(
            spec.QueueUnbind(
                queue=name_of(queue),
                exchange=exchange,
                routing_key=routing_key,
                arguments=dict(arguments or {}),
            ),
            spec.QueueUnbindOk,
        )

    def bind_exchange(
        self,
        destination: str,
        source: str,
        routing_key: str = "",
        *,
        arguments: Mapping[str, Value] | None = None,
    ) -> None:
        """Have the messages of exchange `source` that fit go on to exchange `destination`.

        Raises:
            NotFound: one of the two does not exist.

        Example:
            >>> with connect(url) as connection, connection.channel() as channel:
            ...     channel.bind_exchange("amq.fanout", "amq.topic", "field.#")
            ...     channel.unbind_exchange("amq.fanout", "amq.topic", "field.#")
        """
        self._ask(
            spec.ExchangeBind(
                destination=destination,
                source=source,
                routing_key=routing_key,
                arguments=dict(arguments or {}),
            ),
            spec.ExchangeBindOk,
        )

    def unbind_exchange(
        self,
        destination: str,
        source: str,
        routing_key: str = "",
        *,
        arguments: Mapping[str, Value] | None = None,
    ) -> None:
        """Take a binding between exchanges back, see `bind_exchange`.

        Example:
            >>> with connect(url) as connection, connection.channel() as channel:
            ...     channel.unbind_exchange("amq.fanout", "amq.topic", "field.#")
        """
        self._ask(
            spec.ExchangeUnbind(
                destination=destination,
                source=source,
                routing_key=routing_key,
                arguments=dict(arguments or {}),
            ),
            spec.ExchangeUnbindOk,
        )

    def delete_queue(
        self, queue: str | Queue, *, if_unused: bool = False, if_empty: bool = False
    ) -> int:
        """Delete a queue and return how many messages went with it; none there is no error.

        Raises:
            PreconditionFailed: it has consumers, or messages, and was not to be deleted then.

        Example:
            >>> with connect(url) as connection, connection.channel() as channel:
            ...     queue = channel.declare_queue("old")
            ...     channel.publish(b"forgotten", "old")
            ...     print(channel.delete_queue("old"))
            1
        """
        method = spec.QueueDelete(queue=name_of(queue), if_unused=if_unused, if_empty=if_empty)
        return (self._ask(method, spec.QueueDeleteOk)).message_count

    def delete_exchange(self, name: str, *, if_unused: bool = False) -> None:
        """Delete an exchange; none there is no error.

        Raises:
            PreconditionFailed: it has bindings, and was not to be deleted then.

        Example:
            >>> with connect(url) as connection, connection.channel() as channel:
            ...     channel.delete_exchange("news")
        """
        method = spec.ExchangeDelete(exchange=name, if_unused=if_unused)
        self._ask(method, spec.ExchangeDeleteOk)

    def purge_queue(self, queue: str | Queue) -> int:
        """Remove all messages that are ready, and return how many they were.

        Raises:
            NotFound: there is no such queue.

        Example:
            >>> with connect(url) as connection, connection.channel() as channel:
            ...     queue = channel.declare_queue("unread")
            ...     channel.publish(b"unread", "unread")
            ...     print(channel.purge_queue("unread"))
            1
        """
        method = spec.QueuePurge(queue=name_of(queue))
        return (self._ask(method, spec.QueuePurgeOk)).message_count

    def _call(self, method: Method, replies: Replies, *, is_repeatable: bool = True) -> object:
        connection = self._connection
        with connection._lock:
            call = self._core.ask(method, replies, is_repeatable=is_repeatable)
            connection._flush()
        return connection._wait(call)

    def _ask(self, method: Method, answer: type[M]) -> M:
        value = self._call(method, answer)
        assert isinstance(value, answer)
        return value
