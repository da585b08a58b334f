"""The messages of the blocking face."""

from __future__ import annotations

from leveret.client.core.message import BaseMessage


class Message(BaseMessage):
    """A delivered message; settle it with `ack`, `nack` or `reject`, once, from any thread.

    Each of the three returns False if the connection on which the message came has gone: then
    there is nothing to settle, the broker delivers it again, marked `redelivered`.

    Example:
        >>> def handle(message: Message) -> None:
        ...     print(message.body, message.routing_key, message.headers)
        ...     message.ack()
    """

    __slots__ = ()

    def ack(self, *, multiple: bool = False) -> bool:
        """Tell the broker that the message is done with, or with `multiple` all up to it.

        Acknowledgements leave together: when the program waits for the next message, and at the
        latest after some milliseconds.

        Raises:
            AlreadySettled: the message was settled before.

        Example:
            >>> def settle(message: Message) -> bool:
            ...     return message.ack()
        """
        with self._channel.connection.lock:
            return self._settle(multiple=True) if multiple else self._ack()

    def nack(self, *, multiple: bool = False, requeue: bool = True) -> bool:
        """Refuse the message: back into the queue, or without `requeue` away (dead-lettered).

        Raises:
            AlreadySettled: the message was settled before.

        Example:
            >>> def postpone(message: Message) -> bool:
            ...     return message.nack()
        """
        with self._channel.connection.lock:
            return self._settle(multiple=multiple, refuse=True, requeue=requeue)

    def reject(self, *, requeue: bool = False) -> bool:
        """Refuse the message for good: away (dead-lettered), unless `requeue`.

        Raises:
            AlreadySettled: the message was settled before.

        Example:
            >>> def discard(message: Message) -> bool:
            ...     return message.reject()
        """
        with self._channel.connection.lock:
            return self._settle(refuse=True, requeue=requeue)
