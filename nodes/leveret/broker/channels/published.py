"""The properties of a publish that the broker looks at: refused, or written anew. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from leveret.amqp import errors
from leveret.amqp.properties import (
    EXPIRATION,
    HEADERS,
    REPLY_TO,
    USER_ID,
    Properties,
    flags,
    with_reply_to,
)
from leveret.broker.queues.message_life import has_life
from leveret.broker.replies import REPLY_QUEUE
from leveret.broker.wire_types import wire_type

if TYPE_CHECKING:
    from leveret.broker.replies import ReplyConsumer

LOOKED_AT: Final = EXPIRATION | HEADERS | REPLY_TO | USER_ID
"""Flags of these properties; a header without them is stored as it came."""

NO_COPIES: Final[tuple[str, ...]] = ()

_COPIES: Final = b"CC"
"""What the octets of a header table contain if CC or BCC may be there."""


class Checked(NamedTuple):
    """A publish whose properties were looked at."""

    header: bytes
    """The content header to store."""
    has_lives: bool
    """It expires, or may be delayed."""
    copies: tuple[str, ...]
    """Routing keys besides its own."""


def checked(header: bytes, *, body_size: int, user: str, replies: ReplyConsumer | None) -> Checked:
    """Look at a publish with the content header `header`.

    user: who publishes. replies: where the replies to the channel's requests go.

    Raises:
        AmqpError: 406, a property is not what it may be.
    """
    present = flags(header)
    copies = NO_COPIES
    if present & (EXPIRATION | REPLY_TO | USER_ID):
        properties = Properties.decode(header)
        if properties.reply_to == REPLY_QUEUE:
            if replies is None:
                raise errors.precondition_failed("fast reply consumer does not exist")
            header = with_reply_to(header, replies.name)
        if properties.user_id is not None and properties.user_id != user:
            raise errors.precondition_failed(
                f"user_id property set to '{properties.user_id}' "
                f"but authenticated user was '{user}'"
            )
        if properties.expiration is not None:
            check_expiration(properties.expiration)
    if present & HEADERS and _COPIES in header:
        header, copies = _copied(header, body_size)
    return Checked(header, has_life(header), copies)


def _copied(header: bytes, body_size: int) -> tuple[bytes, tuple[str, ...]]:
    """Return the header without BCC, and the keys in CC and BCC.

    Raises:
        AmqpError: 406, one of them is no list.
    """
    properties = Properties.decode(header).copy()
    try:
        headers = dict(properties.headers or {})
    except errors.AmqpError:
        return header, NO_COPIES  # what nobody can read asks for nothing
    keys: list[str] = []
    for name in ("CC", "BCC"):
        value = headers.get(name)
        if value is None:
            continue
        if not isinstance(value, list):
            raise errors.precondition_failed(
                f'invalid message: {{unacceptable_type_in_header,"{name}",{wire_type(value)}}}'
            )
        keys += [key for key in value if isinstance(key, str)]
    if "BCC" in headers:
        del headers["BCC"]
        properties.headers = headers
        header = properties.encode(body_size)
    return header, tuple(keys)


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
