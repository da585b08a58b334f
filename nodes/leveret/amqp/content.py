"""Assembly of one message on one channel out of its header and body frames.

Memory is bounded by what has arrived, never by what was announced: an announced size allocates
nothing, and fragments are merged while they are small, so that a peer which sends a body octet by
octet costs no more than one which does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from leveret.amqp.errors import precondition_failed, unexpected_frame
from leveret.amqp.frames import unknown_frame
from leveret.amqp.properties import is_well_formed, malformed_header

if TYPE_CHECKING:
    from leveret.amqp.method import Method

# Neighbouring fragments below this are joined on arrival: an object of its own costs 33 octets and
# a place in the list, which a fragment of 4 KiB makes negligible.
_FRAGMENT_MIN: Final = 4096
_HEADER_FRAME: Final = 2
_BODY_FRAME: Final = 3


class Assembly:
    """The content that follows one method, until it is whole.

    `header` is b"" until the header frame came; `missing` counts the body octets still to come;
    `number` is the connection's for it, 0 without one.
    """

    __slots__ = ("_fragments", "class_id", "header", "method", "method_id", "missing", "number")

    def __init__(self, method: Method | bytes, class_id: int, method_id: int) -> None:
        # A publish stays the octets of its method frame, every other method is decoded.
        self.method = method
        self.class_id = class_id
        self.method_id = method_id
        self.header = b""
        self.missing = 0
        self.number = 0
        self._fragments: list[bytes] = []

    def add(self, kind: int, payload: bytes, *, message_size_max: int) -> bool:
        """Take the next frame of this channel; true when the content is whole.

        Raises:
            AmqpError: 505, it is not the frame that must come next; 501 or 502, the header is
                malformed; 406 (a channel error), the announced body exceeds `message_size_max`.
        """
        if self.header:
            if kind != _BODY_FRAME:
                raise self._unexpected("expected content body, got non content body frame instead")
            return self._add_fragment(payload)
        if kind == _HEADER_FRAME and len(payload) < 12:
            raise unknown_frame(kind, payload)
        if kind != _HEADER_FRAME or payload[2:4] != b"\x00\x00":
            # RabbitMQ takes a header with a weight for no header at all.
            raise self._unexpected(
                f"expected content header for class {self.class_id}, "
                "got non content header frame instead"
            )
        class_id = int.from_bytes(payload[:2], "big")
        if class_id != self.class_id:
            raise self._unexpected(
                f"expected content header for class {self.class_id}, "
                f"got one for class {class_id} instead"
            )
        if not is_well_formed(payload):
            raise malformed_header().caused_by(self.class_id, self.method_id)
        size = int.from_bytes(payload[4:12], "big")
        if size > message_size_max:
            raise precondition_failed(
                f"message size {size} is larger than configured max size {message_size_max}",
                self.class_id,
                self.method_id,
            )
        self.header = payload
        self.missing = size
        return size == 0

    @property
    def received(self) -> int:
        """Octets of the body that have come so far."""
        return sum(map(len, self._fragments))

    def body(self) -> bytes:
        """The whole body."""
        fragments = self._fragments
        return fragments[0] if len(fragments) == 1 else b"".join(fragments)

    def _add_fragment(self, payload: bytes) -> bool:
        self.missing -= len(payload)
        if self.missing < 0:
            raise self._unexpected("content body is longer than its header announced")
        fragments = self._fragments
        if fragments and len(fragments[-1]) + len(payload) < _FRAGMENT_MIN:
            fragments[-1] += payload
        elif payload:
            fragments.append(payload)
        return self.missing == 0

    def _unexpected(self, detail: str) -> Exception:
        return unexpected_frame(detail, self.class_id, self.method_id)
