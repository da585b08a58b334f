"""The publishes of a channel that are not confirmed yet, over all its incarnations.

Messages are numbered from 1, in the order of their publishes, for the life of the channel: these
are the sequence numbers by which a broker recognises what is sent again. Within an incarnation
the broker counts delivery tags from 1; sequence number = tag + offset. The window is a deque in
which nothing is missing, so that a tag is an index: what is done with out of turn keeps its place
until all before it is done.
"""

from __future__ import annotations

import re
from collections import deque
from struct import Struct
from typing import TYPE_CHECKING, Final

from leveret.amqp import Properties, spec
from leveret.amqp.frames import append_body, encode_method
from leveret.client.errors import (
    ChannelClosed,
    ClientError,
    MessageTooLarge,
    PublishRefused,
    Unroutable,
    again,
)

from .outcome import Outcome

if TYPE_CHECKING:
    from .connection import ConnectionCore

_HEADER_HEAD: Final = Struct(">BHI").pack
_BODY_HEAD: Final = Struct(">BBHI").pack
_END: Final = b"\xce"
_PREFIXES_MAX: Final = 512
_FRAMING_OCTETS: Final = 64
_EXCHANGE: Final = re.compile(r"exchange '([^']*)'")
_EMPTY: Final = Properties().encode(0)
PLACEHOLDER_KEY: Final = "amq.leveret.nothing"
"""Routing key of a publish that only takes a number; no queue can be called so."""


class PendingPublish(Outcome[None]):
    """A message between its publish and the broker's confirm."""

    __slots__ = (
        "body",
        "exchange",
        "header",
        "is_abandoned",
        "is_mandatory",
        "returned",
        "routing_key",
    )

    def __init__(
        self,
        exchange: str,
        routing_key: str,
        header: bytes,
        body: bytes,
        is_mandatory: bool,  # noqa: FBT001 - positional for speed: built once a message
    ) -> None:
        # The base's fields without its constructor: a call a message.
        self.is_done = False
        self.error = None
        self.notify = None
        self._value = None
        self.exchange = exchange
        self.routing_key = routing_key
        self.header = header
        self.body = body
        self.is_mandatory = is_mandatory
        self.is_abandoned = False
        """Nobody waits for it any more: it is not sent again."""
        self.returned: Unroutable | None = None

    @property
    def target(self) -> str:
        """Where it was to go, in words."""
        if not self.exchange:
            return f"queue {self.routing_key!r}"
        return f"exchange {self.exchange!r} with routing key {self.routing_key!r}"


class Window:
    """What one channel has published, and writes."""

    def __init__(self, connection: ConnectionCore, number: int) -> None:
        self.confirmed = 0
        self._connection = connection
        self._number = number
        self._pending: deque[PendingPublish] = deque()
        self._first = 1
        """The sequence number of the first of `_pending`."""
        self._offset = 0
        self._prefixes: dict[tuple[str, str, bool, int], bytes] = {}

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def offset(self) -> int:
        """The sequence number before the first message of this incarnation."""
        return self._offset

    def add(self, pending: PendingPublish) -> None:
        """Number a message; it is to be written next, or by `write_all`."""
        self._pending.append(pending)

    def write(self, pending: PendingPublish) -> None:
        """Write the frames of a message."""
        connection = self._connection
        header = pending.header
        key = (pending.exchange, pending.routing_key, pending.is_mandatory, len(header))
        prefix = self._prefixes.get(key) or self._prefix(*key)
        body = pending.body
        size = len(body)
        if 0 < size <= connection.payload_max:
            connection.out += (prefix, header, _BODY_HEAD(0xCE, 3, self._number, size), body, _END)
        else:
            pieces: list[bytes | memoryview] = [prefix, header, _END]
            append_body(pieces, self._number, memoryview(body), connection.payload_max + 8)
            connection.out.append(b"".join(pieces))
        connection.wrote(size + _FRAMING_OCTETS)

    def _prefix(self, exchange: str, routing_key: str, mandatory: bool, size: int) -> bytes:  # noqa: FBT001
        """The method frame of a publish, and the beginning of its header frame."""
        method = spec.BasicPublish(exchange=exchange, routing_key=routing_key, mandatory=mandatory)
        prefix = encode_method(self._number, method.encode()) + _HEADER_HEAD(2, self._number, size)
        if len(self._prefixes) >= _PREFIXES_MAX:
            self._prefixes.clear()
        self._prefixes[(exchange, routing_key, mandatory, size)] = prefix
        return prefix

    # Incarnations

    def renumber(self, *, keeps_numbers: bool) -> None:
        """Have tag 1 of the incarnation that begins stand for the first unconfirmed message.

        keeps_numbers: the broker compares them, so each message has to keep its own.
        """
        pending = self._pending
        if not keeps_numbers:
            self._first += len(pending)
            self._pending = pending = deque(
                one for one in pending if not one.is_done and not one.is_abandoned
            )
        self._offset = self._first - 1
        for place, one in enumerate(pending):
            one.returned = None
            if one.is_done or one.is_abandoned:
                # Its number must be taken, or those behind it would get other ones.
                pending[place] = PendingPublish("", PLACEHOLDER_KEY, _EMPTY, b"", False)

    def write_all(self) -> None:
        """Write again all that is not confirmed, in order."""
        for pending in self._pending:
            self.write(pending)

    def fail_all(self, error: ClientError) -> None:
        """Fail all that is not confirmed, and forget it."""
        failed, self._pending = self._pending, deque()
        self._first += len(failed)
        for pending in failed:
            pending.fail(again(error))

    # What the broker says

    def confirm(self, tag: int, *, multiple: bool, refused: bool) -> None:
        """Take the broker's confirm for one message, or for all up to it (tag 0: all)."""
        pending = self._pending
        last = tag + self._offset - self._first if tag or not multiple else len(pending) - 1
        if last >= len(pending) or last < 0:
            return
        if multiple:
            for _ in range(last + 1):
                self._first += 1
                self._settle(pending.popleft(), refused=refused)
            return
        self._settle(pending[last], refused=refused)
        while pending and pending[0].is_done:
            pending.popleft()
            self._first += 1

    def _settle(self, pending: PendingPublish, *, refused: bool) -> None:
        if pending.is_done:
            return
        if refused:
            pending.fail(
                PublishRefused(
                    f"the broker refused the message for {pending.target} (basic.nack): the queue "
                    "is full, or has just been lost. Publish it again later."
                )
            )
        elif pending.returned is not None:
            pending.fail(pending.returned)
        else:
            self.confirmed += 1
            pending.is_done = True
            notify = pending.notify
            if notify is not None:
                notify(pending)

    def note_return(self, method: spec.BasicReturn, header: bytes, body: bytes) -> None:
        """Note that a message came back; its confirm follows.

        The broker does not say which one: it is the first of those that look alike, which all
        fare alike.
        """
        for pending in self._pending:
            if (
                pending.is_mandatory
                and not pending.is_done
                and pending.returned is None
                and pending.body == body
                and pending.routing_key == method.routing_key
                and pending.exchange == method.exchange
            ):
                error = Unroutable(
                    f"{method.reply_code} {method.reply_text}: the message for {pending.target} "
                    "fits no queue and came back. Declare the queue, or bind one to the exchange.",
                    reply_code=method.reply_code,
                    reply_text=method.reply_text,
                )
                error.exchange, error.routing_key = method.exchange, method.routing_key
                error.body, error.properties = body, Properties.decode(header)
                pending.returned = error
                return

    def guilty(self, error: ChannelClosed) -> list[PendingPublish]:
        """The messages for which the broker may have closed the channel."""
        waiting = [pending for pending in self._pending if not pending.is_done]
        guilty: list[PendingPublish] = []
        if isinstance(error, MessageTooLarge) and error.size_max:
            guilty = [pending for pending in waiting if len(pending.body) > error.size_max]
        else:
            found = _EXCHANGE.search(error.reply_text)
            if found:
                guilty = [pending for pending in waiting if pending.exchange == found[1]]
        return guilty or waiting
