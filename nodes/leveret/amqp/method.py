"""What every generated method class shares: identity, equality, representation."""

from __future__ import annotations

from typing import ClassVar, Self


class Method:
    """One AMQP method and its arguments; the subclasses in `spec` are generated."""

    __slots__: tuple[str, ...] = ()
    CLASS_ID: ClassVar[int]
    METHOD_ID: ClassVar[int]
    ID: ClassVar[int]
    """The class id in the high and the method id in the low 16 bits, as the payload begins."""
    NAME: ClassVar[str]
    """As the specification writes it: `queue.declare-ok`."""
    HAS_CONTENT: ClassVar[bool]
    SYNCHRONOUS: ClassVar[bool]
    """The sender expects an answer (unless the method says `nowait`)."""
    FROM_CLIENT: ClassVar[bool]
    FROM_SERVER: ClassVar[bool]

    def encode(self) -> bytes:
        """The payload of the method frame: class id, method id, arguments.

        Raises:
            ValueError: an argument does not fit its wire type.
        """
        raise NotImplementedError

    @classmethod
    def decode(cls, payload: bytes, offset: int = 4) -> Self:
        """The method whose arguments are `payload` from `offset` to its end.

        Raises:
            AmqpError: 501, they are not this method's arguments; 502, a table is malformed.
        """
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"{type(self).__name__}({fields})"
