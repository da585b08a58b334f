"""The messages of the trio face."""

from __future__ import annotations

from .core.message import BaseMessage


class Message(BaseMessage):
    """A delivered message; settle it with `ack`, `nack` or `reject`, once.

    Each of the three returns False if the connection on which the message came has gone: then
    there is nothing to settle, the broker delivers it again, marked `redelivered`.

    Example:
        >>> async def handle(message: Message) -> None:
        ...     print(message.body, message.routing_key, message.headers)
        ...     await message.ack()
    """

    __slots__ = ()

    async def ack(self, *, multiple: bool = False) -> bool:
        """Tell the broker that the message is done with, or with `multiple` all up to it.

        Acknowledgements leave together at the loop's next turn. Not a checkpoint, and never
        waits: the broker does not answer.

        Raises:
            AlreadySettled: the message was settled before.

        Example:
            >>> async def settle(message: Message) -> bool:
            ...     return await message.ack()
        """
        if multiple:
            return self._settle(multiple=True)
        return self._ack()

    async def nack(self, *, multiple: bool = False, requeue: bool = True) -> bool:
        """Refuse the message: back into the queue, or without `requeue` away (dead-lettered).

        Raises:
            AlreadySettled: the message was settled before.

        Example:
            >>> async def postpone(message: Message) -> bool:
            ...     return await message.nack()
        """
        return self._settle(multiple=multiple, refuse=True, requeue=requeue)

    async def reject(self, *, requeue: bool = False) -> bool:
        """Refuse the message for good: away (dead-lettered), unless `requeue`.

        Raises:
            AlreadySettled: the message was settled before.

        Example:
            >>> async def discard(message: Message) -> bool:
            ...     return await message.reject()
        """
        return self._settle(refuse=True, requeue=requeue)
