"""Values to bodies and back, by content type."""

from __future__ import annotations

import json
from typing import Final, Protocol

import msgpack


class Serializer(Protocol):
    """Turns values into octets and back.

    Example:
        >>> class Text:
        ...     content_type = "text/plain"
        ...     def encode(self, value: object) -> bytes:
        ...         return str(value).encode()
        ...     def decode(self, body: bytes) -> object:
        ...         return body.decode()
        >>> serializer: Serializer = Text()
    """

    @property
    def content_type(self) -> str:
        """What the property `content_type` of a message says."""

    def encode(self, value: object) -> bytes:
        """The body for a value; raises TypeError or ValueError if it has none."""

    def decode(self, body: bytes) -> object:
        """The value of a body; raises ValueError if it is malformed."""


class Json:
    """JSON in UTF-8, without spaces.

    Example:
        >>> Json().encode({"hare": 1})
        b'{"hare":1}'
        >>> Json().decode(b'{"hare":1}')
        {'hare': 1}
    """

    content_type = "application/json"

    def encode(self, value: object) -> bytes:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()

    def decode(self, body: bytes) -> object:
        value: object = json.loads(body)
        return value


class Msgpack:
    """MessagePack, which takes octets too and is smaller and faster.

    Example:
        >>> Msgpack().decode(Msgpack().encode({"hare": b"1"}))
        {'hare': b'1'}
    """

    content_type = "application/msgpack"

    def encode(self, value: object) -> bytes:
        return bytes(msgpack.packb(value))

    def decode(self, body: bytes) -> object:
        try:
            value: object = msgpack.unpackb(body)
        except (msgpack.UnpackException, ValueError) as error:
            raise ValueError(f"malformed MessagePack: {error}") from None
        return value


class Raw:
    """Octets as they are.

    Example:
        >>> Raw().encode(bytearray(b"hare"))
        b'hare'
    """

    content_type = "application/octet-stream"

    def encode(self, value: object) -> bytes:
        if not isinstance(value, bytes | bytearray | memoryview):
            raise TypeError(f"raw bodies are bytes, not {type(value).__name__}")
        return bytes(value)

    def decode(self, body: bytes) -> object:
        return body


JSON: Final = Json()
MSGPACK: Final = Msgpack()
RAW: Final = Raw()
ALL: Final[tuple[Serializer, ...]] = (JSON, MSGPACK, RAW)
