"""Requests of one channel that wait for their replies, by correlation id."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from leveret.amqp import Properties
from leveret.client.errors import ClientError, Misuse, again

from .outcome import Outcome

if TYPE_CHECKING:
    from .message import BaseMessage

REPLY_QUEUE: Final = "amq.rabbitmq.reply-to"
"""What is consumed from for direct reply-to."""


class Requests:
    """See the module. `reply_to` is where replies come, once somebody listens for them."""

    def __init__(self) -> None:
        self.reply_to = ""
        self._waiting: dict[str, Outcome[BaseMessage]] = {}
        self._number = 0

    def begin(
        self, publisher: str, reply_to: str, properties: Properties | None
    ) -> tuple[Properties, Outcome[BaseMessage]]:
        """The properties for a request, and the outcome that will be its reply; see `end`."""
        self._number += 1
        asked = Properties() if properties is None else properties.copy()
        asked.correlation_id = f"{publisher}.{self._number}"
        asked.reply_to = reply_to
        reply: Outcome[BaseMessage] = Outcome()
        self._waiting[asked.correlation_id] = reply
        return asked, reply

    def end(self, asked: Properties) -> None:
        """Nobody waits for the reply any more."""
        self._waiting.pop(asked.correlation_id or "", None)

    def take(self, message: BaseMessage) -> None:
        """Give a reply to the request that waits for it; one that nobody waits for is dropped."""
        reply = self._waiting.pop(message.properties.correlation_id or "", None)
        if reply is not None:
            reply.succeed(message)

    def fail_all(self, error: ClientError) -> None:
        """No reply will come any more."""
        waiting, self._waiting = self._waiting, {}
        for reply in waiting.values():
            reply.fail(again(error))


def answer_to(request: BaseMessage, properties: Properties | None) -> tuple[str, Properties]:
    """Where the reply to a request goes, and its properties.

    Raises:
        Misuse: the request does not say.
    """
    to = request.properties.reply_to
    if not to:
        raise Misuse("the request has no reply_to: its sender expects no reply")
    answer = Properties() if properties is None else properties.copy()
    answer.correlation_id = request.properties.correlation_id
    return to, answer
