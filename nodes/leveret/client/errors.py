"""What can go wrong, each error with what to do about it.

`ClientError` is the base of all. An error that the broker sent carries its reply code and text;
the broker's text stays first in the message, for those who search for it.
"""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leveret.amqp import Properties

_INEQUIVALENT: Final = re.compile(
    r"inequivalent arg '(?P<name>[^']*)' for (?P<what>queue|exchange) '(?P<of>[^']*)'.*?"
    r"received (?P<wanted>.*?) but current is (?P<current>.*)"
)
_TOO_LARGE: Final = re.compile(
    r"message size \d+ (?:is )?larger than (?:configured )?max size (\d+)"
)


class ClientError(Exception):
    """Base of what this package raises.

    Example:
        >>> issubclass(ConnectFailed, ClientError)
        True
    """


class InvalidUrl(ClientError, ValueError):
    """The URL is malformed; the text says where. Do: correct it."""


class Misuse(ClientError, RuntimeError):
    """The program calls what it may not: the text says what to call instead."""


class ConnectFailed(ClientError):
    """No address could be connected to. Do: see `attempts`, (address, reason) of each.

    Example:
        >>> error = ConnectFailed([("a:5672", "connection refused"), ("b:5672", "timed out")])
        >>> print(error)
        no broker could be reached:
          a:5672: connection refused
          b:5672: timed out
    """

    def __init__(self, attempts: Sequence[tuple[str, str]]) -> None:
        lines = "".join(f"\n  {address}: {reason}" for address, reason in attempts)
        super().__init__(f"no broker could be reached:{lines}")
        self.attempts = list(attempts)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.attempts,)


class BrokerError(ClientError):
    """Base of what the broker answers. `reply_code` is AMQP's, `reply_text` the broker's words.

    Example:
        >>> BrokerError("404 …", reply_code=404, reply_text="NOT_FOUND - …").reply_code
        404
    """

    def __init__(self, text: str, *, reply_code: int = 0, reply_text: str = "") -> None:
        super().__init__(text)
        self.reply_code = reply_code
        self.reply_text = reply_text


class AuthenticationRefused(BrokerError):
    """User name, password or certificate are not accepted. Do: correct them; retrying is no use."""


class VirtualHostRefused(BrokerError):
    """The virtual host does not exist, or the user may not use it."""


class ConnectionClosed(BrokerError):
    """The connection is closed: by the program, by the broker for a reason, or for good.

    Do: open another one. With reply code 0 it was not the broker who closed it.
    """


class ConnectionLost(ConnectionClosed):
    """The transport broke, and what was under way cannot be taken up again.

    Do: check whether it happened (its outcome is not known), and repeat it if not.
    """


class TransactionLost(ConnectionLost):
    """The connection broke within a transaction, which the broker has rolled back.

    Do: repeat the whole transaction.
    """


class ReplyLost(ConnectionLost):
    """The connection broke between a request and its reply, which can no longer come.

    Do: call again if doing it twice is harmless, or pass `resend=True` in the first place.
    """


class ChannelClosed(BrokerError):
    """The broker closed the channel for an error, or the program closed it.

    Do: what the broker's text says. In robust mode the channel itself goes on.
    """


class NotFound(ChannelClosed):
    """404: there is no such queue or exchange. Do: declare it first."""


class AccessRefused(ChannelClosed):
    """403: the user's permissions do not allow it, or a consumer has the queue for itself."""


class ResourceLocked(ChannelClosed):
    """405: the queue is exclusive to another connection."""


class PreconditionFailed(ChannelClosed):
    """406: it exists with other arguments, is in use, or is not empty.

    differs: argument, wanted and current value, when it was declared with other arguments.

    Example:
        >>> error = channel_error(406, "PRECONDITION_FAILED - inequivalent arg 'durable' for queue "
        ...     "'q' in vhost '/': received 'false' but current is 'true'")
        >>> error.differs
        ('durable', "'false'", "'true'")
    """

    @property
    def differs(self) -> tuple[str, str, str] | None:
        found = _INEQUIVALENT.search(self.reply_text)
        return (found["name"], found["wanted"], found["current"]) if found else None


class MessageTooLarge(PreconditionFailed):
    """The body is larger than the broker takes. Do: split it, or store it and send a reference.

    Example:
        >>> channel_error(406, "PRECONDITION_FAILED - message size 9 is larger than configured "
        ...     "max size 8").size_max
        8
    """

    @property
    def size_max(self) -> int:
        """Octets that the broker takes, 0 if it did not say."""
        found = _TOO_LARGE.search(self.reply_text)
        return int(found[1]) if found else 0


class Unroutable(BrokerError):
    """A mandatory message fitted no queue and came back. Do: declare or bind the queue.

    `exchange`, `routing_key`, `body` and `properties` are those of the message.
    """

    exchange: str = ""
    routing_key: str = ""
    body: bytes = b""
    properties: Properties | None = None


class PublishRefused(ClientError):
    """The broker refused a message (basic.nack): the queue is full, or has just been lost.

    Do: publish it again later.
    """


class ConsumerCancelled(ClientError):
    """The broker ended the consumer, because its queue was deleted or is not available.

    Do: declare the queue and consume again.
    """


class TimedOut(ClientError, TimeoutError):
    """A call of the blocking face took longer than it may; what it asked for may happen yet."""


class AlreadySettled(Misuse):
    """The message was acknowledged or rejected before, or was delivered with `no_ack`."""


def channel_error(reply_code: int, reply_text: str) -> ChannelClosed:
    """The error for a channel.close of the broker.

    Example:
        >>> type(channel_error(404, "NOT_FOUND - no queue 'q' in vhost '/'")).__name__
        'NotFound'
    """
    cls = _BY_CODE.get(reply_code, ChannelClosed)
    text = f"{reply_code} {reply_text}"
    if reply_code == 406:
        found = _INEQUIVALENT.search(reply_text)
        if found:
            text += (
                f"\n{found['what']} {found['of']!r} exists with another {found['name']!r}: "
                f"you asked for {found['wanted']}, it has {found['current']}. "
                "Declare it as it is, or delete it first."
            )
        elif _TOO_LARGE.search(reply_text):
            cls = MessageTooLarge
            text += "\nSplit the message, or store it elsewhere and send a reference."
    return cls(text, reply_code=reply_code, reply_text=reply_text)


def connection_error(reply_code: int, reply_text: str) -> BrokerError:
    """The error for a connection.close of the broker.

    Example:
        >>> str(connection_error(320, "CONNECTION_FORCED - shutdown"))
        '320 CONNECTION_FORCED - shutdown'
    """
    return ConnectionClosed(
        f"{reply_code} {reply_text}", reply_code=reply_code, reply_text=reply_text
    )


def again(error: ClientError) -> ClientError:
    """A fresh copy of an error that several callers get: each raise adds to its traceback.

    Example:
        >>> error = ClientError("gone")
        >>> again(error) is error, str(again(error))
        (False, 'gone')
    """
    return copy.copy(error)


_BY_CODE: Final[dict[int, type[ChannelClosed]]] = {
    403: AccessRefused,
    404: NotFound,
    405: ResourceLocked,
    406: PreconditionFailed,
}
