"""The trio face of a channel: publish, consume, get, transactions, calls.

Every method that asks the broker something is a checkpoint; cancelling it does not undo what was
asked. A channel may be used by several tasks together.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, Self

import trio

from leveret.amqp import Properties, spec

from .core.bodies import Body, octets_of
from .core.message import OFFSET
from .core.requests import REPLY_QUEUE, answer_to
from .core.templates import template_of
from .declarations import Declarations
from .deliveries import Deliveries
from .errors import (
    ChannelClosed,
    ClientError,
    Misuse,
    ReplyLost,
    again,
)
from .message import Message
from .publisher import Publisher
from .results import name_of
from .waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping
    from datetime import datetime
    from types import TracebackType

    from leveret.amqp.fields import Value

    from .connection import Connection
    from .core.channel import ChannelCore
    from .results import Queue

CLOSE_WITHIN_S: Final = 3.0
"""How long the broker may take to answer a channel.close."""
PREFETCH: Final = 100
"""Messages that a consumer is given ahead of its acknowledgements, by default."""


class Channel(Declarations):
    """A channel; make it with `Connection.channel`, and enter it with `async with`.

    Example:
        >>> async def main() -> None:
        ...     async with connect(url) as connection, connection.channel() as channel:
        ...         await channel.declare_queue("hello")
        ...         await channel.publish(b"Hello, hare!", "hello")
        ...         message = await channel.get("hello", no_ack=True)
        ...         print(message.body)
        >>> trio.run(main)
        b'Hello, hare!'
    """

    def __init__(self, connection: Connection, *, confirms: bool, transactional: bool) -> None:
        self._connection = connection
        self._confirms = confirms
        self._transactional = transactional
        self._opened: ChannelCore | None = None

    @property
    def _core(self) -> ChannelCore:
        if self._opened is None:
            raise Misuse("the channel is not open yet: async with connection.channel() as channel")
        self._connection._check_thread()
        return self._opened

    async def __aenter__(self) -> Self:
        if self._opened is not None:
            raise Misuse("a channel is entered once: call connection.channel() for another one")
        self._opened = self._connection._core.open_channel(
            confirms=self._confirms, transactional=self._transactional
        )
        try:
            await wait_for(self._opened.opened)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channel: its consumers end, what they hold returns to the queues.

        Done by itself at the end of `async with`. Shielded, for `CLOSE_WITHIN_S` at most.

        Example:
            >>> async def main() -> None:
            ...     async with connect(url) as connection, connection.channel() as channel:
            ...         await channel.close()
            ...         try:
            ...             await channel.publish(b"late", "hello")
            ...         except ChannelClosed as error:
            ...             print(error)
            >>> trio.run(main)
            the channel was closed by the program: open another one
        """
        core = self._core
        if core.error is not None:
            return
        error = ChannelClosed("the channel was closed by the program: open another one")
        with trio.move_on_after(CLOSE_WITHIN_S, shield=True), suppress(ClientError):
            await wait_for(core.close(error))
        core.end(error)

    # Publishing

    async def publish(
        self,
        body: Body,
        routing_key: str = "",
        *,
        exchange: str = "",
        properties: Properties | None = None,
        mandatory: bool = False,
    ) -> None:
        """Publish a message, and wait until the broker has it (unless without confirms).

        The exchange without a name hands it to the queue that the routing key names. Without
        `properties` it is persistent. Waits while the broker blocks publishers. If cancelled,
        the message may be published or not; it is not sent again.

        mandatory: it must fit a queue.

        Raises:
            Unroutable: it is mandatory and fits no queue.
            PublishRefused: the broker does not take it now, most often for a full queue.
            MessageTooLarge: the broker takes no message of this size.
            NotFound: there is no such exchange. AccessRefused: it is not to be written to.
            ChannelClosed, ConnectionClosed: there is nobody to publish to.

        Example:
            >>> async def main() -> None:
            ...     async with connect(url) as connection, connection.channel() as channel:
            ...         try:
            ...             await channel.publish(b"lost", "nobody-has-this-one", mandatory=True)
            ...         except Unroutable as error:
            ...             print(error.reply_code)
            >>> trio.run(main)
            312
        """
        template = template_of(properties)
        octets = octets_of(body)
        connection = self._connection
        if connection._core.blocked is not None:
            await connection._until_unblocked()
        if self._confirms:
            pending = self._core.publish(
                exchange, routing_key, template.encode(len(octets)), octets, mandatory=mandatory
            )

            def abandon() -> None:
                pending.is_abandoned = True

            await wait_for(pending, abandon)
            return
        if mandatory:
            raise Misuse("without confirms nobody hears of a mandatory message that comes back")
        await connection._until_live()
        self._core.check_transaction()
        self._core.publish(
            exchange, routing_key, template.encode(len(octets)), octets, mandatory=False
        )
        await connection._until_room()

    def publisher(
        self,
        routing_key: str = "",
        *,
        exchange: str = "",
        properties: Properties | None = None,
        mandatory: bool = False,
        window: int = 100,
        on_settled: Callable[[bytes, Exception | None], None] | None = None,
    ) -> Publisher:
        """Something that publishes many messages, `window` of them before their confirms.

        Much faster than one `publish` after the other. Enter it with `async with`, whose end
        waits for all confirms. The arguments hold for all messages that do not bring their own.

        on_settled: called with the body of each message when its confirm comes, or with the
            error that `publish` would raise; then `send` and `flush` do not raise it. It must
            not raise or wait.

        Raises:
            Misuse: the channel has no confirms.

        Example:
            >>> async def main() -> None:
            ...     async with connect(url) as connection, connection.channel() as channel:
            ...         await channel.declare_queue("many")
            ...         async with channel.publisher("many", window=500) as publisher:
            ...             for number in range(1000):
            ...                 await publisher.send(b"message %d" % number)
            ...         print(await channel.purge_queue("many"))
            >>> trio.run(main)
            1000
        """
        if not self._confirms:
            raise Misuse("a publisher needs a channel with confirms: connection.channel()")
        return Publisher(
            self,
            routing_key=routing_key,
            exchange=exchange,
            properties=properties,
            mandatory=mandatory,
            window=window,
            on_settled=on_settled,
        )

    # Consuming

    def consume(
        self,
        queue: str | Queue,
        *,
        prefetch: int = PREFETCH,
        no_ack: bool = False,
        exclusive: bool = False,
        priority: int | None = None,
        offset: str | int | datetime | None = None,
        arguments: Mapping[str, Value] | None = None,
        tag: str = "",
    ) -> Deliveries:
        """The messages of a queue, for `async for`; begins with the first turn.

        With `async with` around it the consumer ends at the end of the block, and what it was
        given and the program did not take returns to the queue. Without, it ends with the loop,
        a cancellation, or the channel.

        prefetch: how many messages the broker may send ahead of the acknowledgements, 0 for any
            number. no_ack: a message is done with when it is sent. exclusive: nobody else may
            consume. priority: those with a higher one are served first. offset: of a stream: where
            to begin ("first", "last", "next", a number, a time, or a span like "1h"); after a loss
            of the connection it goes on behind what the program took.

        Raises, in the loop:
            NotFound: there is no such queue. AccessRefused: somebody has it for itself.
            ConsumerCancelled: the queue was deleted.
            ChannelClosed, ConnectionClosed: there is nobody to consume from.

        Example:
            >>> async def main() -> None:
            ...     async with connect(url) as connection, connection.channel() as channel:
            ...         await channel.declare_queue("hello")
            ...         await channel.publish(b"Hello, hare!", "hello")
            ...         async for message in channel.consume("hello"):
            ...             print(message.body)
            ...             await message.ack()
            ...             break
            >>> trio.run(main)
            b'Hello, hare!'
        """
        table = dict(arguments or {})
        if priority is not None:
            table["x-priority"] = priority
        if offset is not None:
            table[OFFSET] = offset
        return Deliveries(
            self,
            name_of(queue),
            prefetch=prefetch,
            no_ack=no_ack,
            exclusive=exclusive,
            arguments=table,
            tag=tag,
        )

    async def get(self, queue: str | Queue, *, no_ack: bool = False) -> Message | None:
        """One message, or None if the queue is empty; its `remaining` says what is left.

        For a look now and then: a consumer is a hundred times faster.

        Raises:
            NotFound: there is no such queue.

        Example:
            >>> async def main() -> None:
            ...     async with connect(url) as connection, connection.channel() as channel:
            ...         await channel.declare_queue("empty")
            ...         print(await channel.get("empty"))
            >>> trio.run(main)
            None
        """
        method = spec.BasicGet(queue=name_of(queue), no_ack=no_ack)
        call = self._core.ask(method, (spec.BasicGetOk, spec.BasicGetEmpty))
        answer = await wait_for(call)
        assert answer is None or isinstance(answer, Message)
        return answer

    async def set_prefetch(self, count: int) -> None:
        """Limit what all consumers of the channel together hold unacknowledged; 0 for no limit.

        Example:
            >>> async def main() -> None:
            ...     async with connect(url) as connection, connection.channel() as channel:
            ...         await channel.set_prefetch(10)
            >>> trio.run(main)
        """
        await wait_for(self._core.set_qos(count))

    # Transactions

    async def commit(self) -> None:
        """Have what was published and acknowledged since the last commit count.

        Raises:
            TransactionLost: the connection broke before: the broker has rolled back.
            ConnectionLost: it broke in the middle of the commit, whose outcome is not known.

        Example:
            >>> async def main() -> None:
            ...     async with connect(url) as connection:
            ...         async with connection.channel(transactional=True) as channel:
            ...             await channel.publish(b"one", "hello")
            ...             await channel.publish(b"two", "hello")
            ...             await channel.commit()
            >>> trio.run(main)
        """
        await wait_for(self._core.end_transaction(spec.TxCommit(), spec.TxCommitOk))

    async def rollback(self) -> None:
        """Undo what was published and acknowledged since the last commit.

        Raises:
            Misuse: the channel is not transactional.

        Example:
            >>> async def main() -> None:
            ...     async with connect(url) as connection:
            ...         async with connection.channel(transactional=True) as channel:
            ...             await channel.publish(b"never mind", "hello")
            ...             await channel.rollback()
            >>> trio.run(main)
        """
        if self._core.is_transaction_lost:
            self._core.is_transaction_lost = False  # the broker did it for us
            await trio.lowlevel.checkpoint()
            return
        await wait_for(self._core.end_transaction(spec.TxRollback(), spec.TxRollbackOk))

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[None]:
        """A block that is committed at its end, and rolled back if it raises.

        Raises:
            TransactionLost, ConnectionLost: as `commit`.

        Example:
            >>> async def main() -> None:
            ...     async with connect(url) as connection:
            ...         async with connection.channel(transactional=True) as channel:
            ...             async with channel.transaction():
            ...                 await channel.publish(b"all or nothing", "hello")
            >>> trio.run(main)
        """
        try:
            yield
        except BaseException:
            with trio.move_on_after(CLOSE_WITHIN_S, shield=True):
                if self._core.error is None:
                    await self.rollback()
            raise
        await self.commit()

    # Request and reply

    async def call(
        self,
        body: Body,
        routing_key: str,
        *,
        exchange: str = "",
        properties: Properties | None = None,
        resend: bool = False,
    ) -> Message:
        """Send a request and wait for its reply; put `trio.fail_after` around it.

        Replies come by direct reply-to where the broker has it, else through a queue of our own.

        resend: ask again if the connection breaks before the reply: the request may then be
            served twice.

        Raises:
            Unroutable: nobody serves such requests.
            ReplyLost: the connection broke before the reply, and it was not to be sent again.

        Example:
            >>> async def main() -> None:
            ...     async with connect(url) as connection, connection.channel() as channel:
            ...         await channel.declare_queue("rpc.double", exclusive=True)
            ...         async with trio.open_nursery() as nursery:
            ...             nursery.start_soon(serve, channel)
            ...             reply = await channel.call(b"21", "rpc.double")
            ...             print(reply.body)
            ...             nursery.cancel_scope.cancel()
            >>> async def serve(channel: Channel) -> None:
            ...     async for request in channel.consume("rpc.double", no_ack=True):
            ...         await channel.reply(request, b"%d" % (2 * int(request.body)))
            >>> trio.run(main)
            b'42'
        """
        octets = octets_of(body)
        await self._listen_for_replies()
        core = self._core
        while True:
            asked, reply = core.begin_request(properties)
            try:
                await self.publish(
                    octets, routing_key, exchange=exchange, properties=asked, mandatory=True
                )
                answer = await wait_for(reply)
            except ReplyLost as error:
                if not resend:
                    raise again(error) from None
                await self._connection._until_live()
            else:
                assert isinstance(answer, Message)
                return answer
            finally:
                core.requests.end(asked)

    async def reply(
        self, request: Message, body: Body, *, properties: Properties | None = None
    ) -> None:
        """Answer a request that came by `call`, or by anyone who set reply_to.

        Who asked may be gone meanwhile; the reply is dropped then.

        Raises:
            Misuse: the request does not say where its reply goes.

        Example:
            >>> async def main() -> None:
            ...     async with connect(url) as connection, connection.channel() as channel:
            ...         queue = await channel.declare_queue(exclusive=True)
            ...         asked = Properties(reply_to=queue.name, correlation_id="7")
            ...         await channel.publish(b"ab", queue.name, properties=asked)
            ...         request = await channel.get(queue, no_ack=True)
            ...         await channel.reply(request, request.body * 2)
            ...         reply = await channel.get(queue, no_ack=True)
            ...         print(reply.body, reply.properties.correlation_id)
            >>> trio.run(main)
            b'abab' 7
        """
        to, answer = answer_to(request, properties)
        await self.publish(body, to, properties=answer)

    async def _listen_for_replies(self) -> None:
        """Begin to consume replies, once."""
        core = self._core
        if core.replies is None:
            reply_to = REPLY_QUEUE
            if not core.connection.has_direct_reply_to:
                queue = await self.declare_queue(exclusive=True, durable=False, auto_delete=True)
                reply_to = queue.declared_as
            core.listen(reply_to)
        assert core.replies is not None
        await wait_for(core.replies.started)
