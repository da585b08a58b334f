"""The blocking face of a channel: publish, consume, get, transactions, calls.

A second face, not a wrapper: it makes the same calls to the core, and waits with locks in place of
tasks. What the methods do is said at length in `leveret.client.channel`.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, Self

from leveret.amqp import Method, Properties, spec
from leveret.client.core.bodies import Body, octets_of
from leveret.client.core.message import OFFSET
from leveret.client.core.requests import REPLY_QUEUE, answer_to
from leveret.client.core.templates import template_of
from leveret.client.errors import (
    ChannelClosed,
    ClientError,
    Misuse,
    ReplyLost,
    TimedOut,
    again,
)
from leveret.client.results import name_of

from .declarations import Declarations
from .deliveries import CLOSE_WITHIN_S, Deliveries
from .message import Message
from .publisher import Publisher

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from datetime import datetime
    from types import TracebackType

    from leveret.amqp.fields import Value
    from leveret.client.results import Queue


PREFETCH: Final = 100
"""Messages that a consumer is given ahead of its acknowledgements, by default."""


class Channel(Declarations):
    """A channel; make it with `Connection.channel`. Any number of threads may use it.

    Example:
        >>> with connect(url) as connection, connection.channel() as channel:
        ...     queue = channel.declare_queue("hello")
        ...     channel.publish(b"Hello, hare!", "hello")
        ...     print(channel.get("hello", no_ack=True).body)
        b'Hello, hare!'
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the channel: its consumers end, what they hold returns to the queues.

        Example:
            >>> with connect(url) as connection:
            ...     connection.channel().close()
        """
        core, connection = self._core, self._connection
        error = ChannelClosed("the channel was closed by the program: open another one")
        with connection._lock:
            if core.error is not None:
                return
            closing = core.close(error)
            connection._flush()
        with suppress(ClientError):
            connection._wait(closing, CLOSE_WITHIN_S)
        with connection._lock:
            core.end(error)

    # Publishing

    def publish(
        self,
        body: Body,
        routing_key: str = "",
        *,
        exchange: str = "",
        properties: Properties | None = None,
        mandatory: bool = False,
    ) -> None:
        """Publish a message, and wait until the broker has it (unless without confirms).

        Raises:
            Unroutable, PublishRefused, MessageTooLarge, NotFound, AccessRefused, ChannelClosed,
            ConnectionClosed: as for `leveret.client.Channel.publish`.
            TimedOut: the broker did not answer; it is not sent again after a loss.

        Example:
            >>> with connect(url) as connection, connection.channel() as channel:
            ...     try:
            ...         channel.publish(b"lost", "nobody-has-this-one", mandatory=True)
            ...     except Unroutable as error:
            ...         print(error.reply_code)
            312
        """
        octets = octets_of(body)
        header = template_of(properties).encode(len(octets))
        connection = self._connection
        if connection._core.blocked is not None:
            connection._wait_unblocked()
        if self._core.confirms:
            with connection._lock:
                pending = self._core.publish(
                    exchange, routing_key, header, octets, mandatory=mandatory
                )
                connection._flush()
            try:
                connection._wait(pending)
            except (TimedOut, KeyboardInterrupt):
                pending.is_abandoned = True
                raise
            return
        if mandatory:
            raise Misuse("without confirms nobody hears of a mandatory message that comes back")
        connection._wait_ready()
        with connection._lock:
            self._core.check_transaction()
            self._core.publish(exchange, routing_key, header, octets, mandatory=False)
            connection._flush()
        connection._wait_room()

    def publisher(
        self,
        routing_key: str = "",
        *,
        exchange: str = "",
        properties: Properties | None = None,
        mandatory: bool = False,
        window: int = 100,
    ) -> Publisher:
        """Something that publishes many messages, `window` of them before their confirms.

        Use it with `with`, whose end waits for all confirms.

        Raises:
            Misuse: the channel has no confirms.

        Example:
            >>> with connect(url) as connection, connection.channel() as channel:
            ...     queue = channel.declare_queue("many.blocking")
            ...     with channel.publisher("many.blocking", window=500) as publisher:
            ...         for number in range(1000):
            ...             publisher.send(b"message %d" % number)
            ...     print(channel.purge_queue("many.blocking"))
            1000
        """
        if not self._core.confirms:
            raise Misuse("a publisher needs a channel with confirms: connection.channel()")
        return Publisher(
            self,
            routing_key=routing_key,
            exchange=exchange,
            properties=properties,
            mandatory=mandatory,
            window=window,
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
        timeout_s: float = float("inf"),
    ) -> Deliveries:
        """The messages of a queue, for `for`; the consumer begins at once.

        Ends with `with`, with the loop, or with the channel. Several threads may iterate it: each
        message goes to one of them.

        timeout_s: the loop ends when no message came for so many seconds. offset: where to begin
            in a stream, as for `leveret.client.Channel.consume`.

        Raises:
            NotFound, AccessRefused, ChannelClosed, ConnectionClosed, in the loop ConsumerCancelled:
            as for `leveret.client.Channel.consume`.

        Example:
            >>> with connect(url) as connection, connection.channel() as channel:
            ...     queue = channel.declare_queue("hello")
            ...     channel.publish(b"Hello, hare!", "hello")
            ...     for message in channel.consume("hello", timeout_s=0.2):
            ...         print(message.body, message.ack())
            b'Hello, hare!' True
        """
        table = dict(arguments or {})
        if priority is not None:
            table["x-priority"] = priority
        if offset is not None:
            table[OFFSET] = offset
        with self._connection._lock:
            core = self._core.consume(
                name_of(queue),
                no_ack=no_ack,
                exclusive=exclusive,
                prefetch=prefetch,
                arguments=table,
                tag=tag,
            )
            self._connection._flush()
        deliveries = Deliveries(self, core, timeout_s)
        self._connection._wait(core.started)
        return deliveries

    def get(self, queue: str | Queue, *, no_ack: bool = False) -> Message | None:
        """One message, or None if the queue is empty; its `remaining` says what is left.

        Raises:
            NotFound: there is no such queue.

        Example:
            >>> with connect(url) as connection, connection.channel() as channel:
            ...     queue = channel.declare_queue("empty")
            ...     print(channel.get("empty"))
            None
        """
        method = spec.BasicGet(queue=name_of(queue), no_ack=no_ack)
        answer = self._call(method, (spec.BasicGetOk, spec.BasicGetEmpty))
        assert answer is None or isinstance(answer, Message)
        return answer

    def set_prefetch(self, count: int) -> None:
        """Limit what all consumers of the channel together hold unacknowledged; 0 for no limit.

        Example:
            >>> with connect(url) as connection, connection.channel() as channel:
            ...     channel.set_prefetch(10)
        """
        with self._connection._lock:
            call = self._core.set_qos(count)
            self._connection._flush()
        self._connection._wait(call)

    # Transactions

    def commit(self) -> None:
        """Have what was published and acknowledged since the last commit count.

        Raises:
            TransactionLost: the connection broke before: the broker has rolled back.
            ConnectionLost: it broke in the middle of the commit, whose outcome is not known.

        Example:
            >>> with connect(url) as connection:
            ...     channel = connection.channel(transactional=True)
            ...     channel.publish(b"one", "hello")
            ...     channel.publish(b"two", "hello")
            ...     channel.commit()
        """
        self._end_transaction(spec.TxCommit(), spec.TxCommitOk)

    def rollback(self) -> None:
        """Undo what was published and acknowledged since the last commit.

        Example:
            >>> with connect(url) as connection:
            ...     channel = connection.channel(transactional=True)
            ...     channel.publish(b"never mind", "hello")
            ...     channel.rollback()
        """
        if self._core.is_transaction_lost:
            self._core.is_transaction_lost = False  # the broker did it for us
            return
        self._end_transaction(spec.TxRollback(), spec.TxRollbackOk)

    @contextmanager
    def transaction(self) -> Generator[None]:
        """A block that is committed at its end, and rolled back if it raises.

        Raises:
            TransactionLost, ConnectionLost: as `commit`.

        Example:
            >>> with connect(url) as connection:
            ...     channel = connection.channel(transactional=True)
            ...     with channel.transaction():
            ...         channel.publish(b"all or nothing", "hello")
        """
        try:
            yield
        except BaseException:
            if self._core.error is None:
                self.rollback()
            raise
        self.commit()

    def _end_transaction(self, method: Method, answer: type[Method]) -> None:
        with self._connection._lock:
            call = self._core.end_transaction(method, answer)
            self._connection._flush()
        self._connection._wait(call)

    # Request and reply

    def call(
        self,
        body: Body,
        routing_key: str,
        *,
        exchange: str = "",
        properties: Properties | None = None,
        resend: bool = False,
        timeout_s: float | None = None,
    ) -> Message:
        """Send a request and wait for its reply.

        resend: ask again if the connection breaks before the reply: the request may then be
            served twice. timeout_s: seconds to wait, by default the connection's.

        Raises:
            Unroutable: nobody serves such requests. TimedOut: no reply came.
            ReplyLost: the connection broke before the reply, and it was not to be sent again.

        Example:
            >>> from threading import Thread
            >>> with connect(url) as connection, connection.channel() as channel:
            ...     queue = channel.declare_queue("rpc.twice", exclusive=True)
            ...     def serve():
            ...         for request in channel.consume("rpc.twice", no_ack=True):
            ...             channel.reply(request, b"%d" % (2 * int(request.body)))
            ...             break
            ...     server = Thread(target=serve)
            ...     server.start()
            ...     print(channel.call(b"21", "rpc.twice", timeout_s=10).body)
            ...     server.join()
            b'42'
        """
        octets = octets_of(body)
        self._listen_for_replies()
        core, connection = self._core, self._connection
        while True:
            with connection._lock:
                asked, reply = core.begin_request(properties)
            try:
                self.publish(
                    octets, routing_key, exchange=exchange, properties=asked, mandatory=True
                )
                answer = connection._wait(reply, timeout_s)
            except ReplyLost as error:
                if not resend:
                    raise again(error) from None
                connection._wait_ready()
            else:
                assert isinstance(answer, Message)
                return answer
            finally:
                core.requests.end(asked)

    def reply(self, request: Message, body: Body, *, properties: Properties | None = None) -> None:
        """Answer a request that came by `call`, or by anyone who set reply_to.

        Raises:
            Misuse: the request does not say where its reply goes.

        Example:
            >>> with connect(url) as connection, connection.channel() as channel:
            ...     queue = channel.declare_queue(exclusive=True)
            ...     asked = Properties(reply_to=queue.name, correlation_id="7")
            ...     channel.publish(b"ab", queue.name, properties=asked)
            ...     request = channel.get(queue, no_ack=True)
            ...     channel.reply(request, request.body * 2)
            ...     print(channel.get(queue, no_ack=True).body)
            b'abab'
        """
        to, answer = answer_to(request, properties)
        self.publish(body, to, properties=answer)

    def _listen_for_replies(self) -> None:
        """Begin to consume replies, once."""
        core, connection = self._core, self._connection
        if core.replies is None:
            reply_to = REPLY_QUEUE
            if not core.connection.has_direct_reply_to:
                queue = self.declare_queue(exclusive=True, durable=False, auto_delete=True)
                reply_to = queue.declared_as
            with connection._lock:
                core.listen(reply_to)
                connection._flush()
        assert core.replies is not None
        connection._wait(core.replies.started)
