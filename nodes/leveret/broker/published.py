"""The properties of a publish that the broker looks at: refused, or written anew. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from leveret.amqp import errors
from leveret.amqp.properties import EXPIRATION, REPLY_TO, USER_ID, Properties, with_reply_to

from .replies import REPLY_QUEUE

if TYPE_CHECKING:
    from .replies import ReplyConsumer

LOOKED_AT: Final = EXPIRATION | REPLY_TO | USER_ID
"""Flags of these properties; a header without them is stored as it came."""


def checked(header: bytes, *, user: str, replies: ReplyConsumer | None) -> bytes:
    """Return the content header to store for a publish with `header`.

    user: who publishes. replies: where the replies to the channel's requests go.

    Raises:
        AmqpError: 406, a property is not what it may be.
    """
    properties = Properties.decode(header)
    if properties.reply_to == REPLY_QUEUE:
        if replies is None:
            raise errors.precondition_failed("fast reply consumer does not exist")
        header = with_reply_to(header, replies.name)
    if properties.user_id is not None and properties.user_id != user:
        raise errors.precondition_failed(
            f"user_id property set to '{properties.user_id}' but authenticated user was '{user}'"
        )
    if properties.expiration is not None:
        check_expiration(properties.expiration)
    return header


def check_expiration(text: str) -> None:
    """Accept or refuse the expiration property of a message.

    Raises:
        AmqpError: 406, it is not a decimal number of milliseconds, 0 to 2**32 - 1.
    """
    if not text.isascii() or not text.removeprefix("-").removeprefix("+").isdigit():
        raise errors.precondition_failed(f"invalid expiration '{text}': no_integer")
    number = int(text)
    if number < 0:
        raise errors.precondition_failed(
            f"invalid expiration '{text}': {{value_negative,{number}}}"
        )
    if number >= 2**32:
        raise errors.precondition_failed(f"invalid expiration '{text}': {{value_too_big,{number}}}")
