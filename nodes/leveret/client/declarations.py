"""The trio face of a channel: its queues, exchanges and bindings.

The other face's are generated from these, see `leveret.client.generate`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leveret.amqp import spec

from .asking import Asking
from .results import Queue, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from leveret.amqp.fields import Value


class Declarations(Asking):
    """The part of `Channel` that declares; a robust connection declares all of it again."""

    async def declare_queue(
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
            >>> async def main() -> None:
            ...     async with connect(url) as connection, connection.channel() as channel:
            ...         queue = await channel.declare_queue(exclusive=True)
            ...         print(queue.message_count, queue.name.startswith("amq.gen-"))
            >>> trio.run(main)
            0 True
        """
        answer = await self._ask(
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

    async def declare_exchange(
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
            >>> async def main() -> None:
            ...     async with connect(url) as connection, connection.channel() as channel:
            ...         await channel.declare_exchange("news", "topic")
            >>> trio.run(main)
        """
        await self._ask(
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

    async def bind_queue(
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
            >>> async def main() -> None:
            ...     async with connect(url) as connection, connection.channel() as channel:
            ...         await channel.declare_exchange("news", "topic")
            ...         queue = await channel.declare_queue(exclusive=True)
            ...         await channel.bind_queue(queue, "news", "field.*")
            >>> trio.run(main)
        """
        await self._ask(
            spec.QueueBind(
                queue=name_of(queue),
                exchange=exchange,
                routing_key=routing_key,
                arguments=dict(arguments or {}),
            ),
            spec.QueueBindOk,
        )

    async def unbind_queue(
        self,
        queue: str | Queue,
        exchange: str,
        routing_key: str = "",
        *,
        arguments: Mapping[str, Value] | None = None,
    ) -> None:
        """Take a binding back; one that is not there is no error.

        Example:
            >>> async def main() -> None:
            ...     async with connect(url) as connection, connection.channel() as channel:
            ...         await channel.unbind_queue("hello", "amq.topic", "field.*")
            >>> trio.run(main)
        """
        await self._ask(
            spec.QueueUnbind(
                queue=name_of(queue),
                exchange=exchange,
                routing_key=routing_key,
                arguments=dict(arguments or {}),
            ),
            spec.QueueUnbindOk,
        )

    async def bind_exchange(
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
            >>> async def main() -> None:
            ...     async with connect(url) as connection, connection.channel() as channel:
            ...         await channel.bind_exchange("amq.fanout", "amq.topic", "field.#")
            ...         await channel.unbind_exchange("amq.fanout", "amq.topic", "field.#")
            >>> trio.run(main)
        """
        await self._ask(
            spec.ExchangeBind(
                destination=destination,
                source=source,
                routing_key=routing_key,
                arguments=dict(arguments or {}),
            ),
            spec.ExchangeBindOk,
        )

    async def unbind_exchange(
        self,
        destination: str,
        source: str,
        routing_key: str = "",
        *,
        arguments: Mapping[str, Value] | None = None,
    ) -> None:
        """Take a binding between exchanges back, see `bind_exchange`.

        Example:
            >>> async def main() -> None:
            ...     async with connect(url) as connection, connection.channel() as channel:
            ...         await channel.unbind_exchange("amq.fanout", "amq.topic", "field.#")
            >>> trio.run(main)
        """
        await self._ask(
            spec.ExchangeUnbind(
                destination=destination,
                source=source,
                routing_key=routing_key,
                arguments=dict(arguments or {}),
            ),
            spec.ExchangeUnbindOk,
        )

    async def delete_queue(
        self, queue: str | Queue, *, if_unused: bool = False, if_empty: bool = False
    ) -> int:
        """Delete a queue and return how many messages went with it; none there is no error.

        Raises:
            PreconditionFailed: it has consumers, or messages, and was not to be deleted then.

        Example:
            >>> async def main() -> None:
            ...     async with connect(url) as connection, connection.channel() as channel:
            ...         queue = await channel.declare_queue("old")
            ...         await channel.publish(b"forgotten", "old")
            ...         print(await channel.delete_queue("old"))
            >>> trio.run(main)
            1
        """
        method = spec.QueueDelete(queue=name_of(queue), if_unused=if_unused, if_empty=if_empty)
        return (await self._ask(method, spec.QueueDeleteOk)).message_count

    async def delete_exchange(self, name: str, *, if_unused: bool = False) -> None:
        """Delete an exchange; none there is no error.

        Raises:
            PreconditionFailed: it has bindings, and was not to be deleted then.

        Example:
            >>> async def main() -> None:
            ...     async with connect(url) as connection, connection.channel() as channel:
            ...         await channel.delete_exchange("news")
            >>> trio.run(main)
        """
        method = spec.ExchangeDelete(exchange=name, if_unused=if_unused)
        await self._ask(method, spec.ExchangeDeleteOk)

    async def purge_queue(self, queue: str | Queue) -> int:
        """Remove all messages that are ready, and return how many they were.

        Raises:
            NotFound: there is no such queue.

        Example:
            >>> async def main() -> None:
            ...     async with connect(url) as connection, connection.channel() as channel:
            ...         queue = await channel.declare_queue("unread")
            ...         await channel.publish(b"unread", "unread")
            ...         print(await channel.purge_queue("unread"))
            >>> trio.run(main)
            1
        """
        method = spec.QueuePurge(queue=name_of(queue))
        return (await self._ask(method, spec.QueuePurgeOk)).message_count
