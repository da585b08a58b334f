"""The bodies that a program may give."""

from __future__ import annotations

Body = bytes | bytearray | memoryview


def octets_of(body: Body) -> bytes:
    """The octets of a body.

    Raises:
        TypeError: it is text, or no body at all.
    """
    if type(body) is bytes:
        return body
    if isinstance(body, str):
        raise TypeError("a body is bytes: encode the text, or use a Producer with a serializer")
    return bytes(body)
