"""The blocking face of a channel: how it asks the broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from leveret.amqp import Method
    from leveret.client.core.channel import ChannelCore, Replies

    from .connection import Connection

M = TypeVar("M", bound="Method")


class Asking:
    """The part of `Channel` that asks and waits for the answer.

    Every method that does so may raise `TimedOut`; what it asked for may happen yet.
    """

    def __init__(self, connection: Connection, core: ChannelCore) -> None:
        self._connection = connection
        self._core = core

    def _call(self, method: Method, replies: Replies, *, is_repeatable: bool = True) -> object:
        connection = self._connection
        with connection._lock:
            call = self._core.ask(method, replies, is_repeatable=is_repeatable)
            connection._flush()
        return connection._wait(call)

    def _ask(self, method: Method, answer: type[M]) -> M:
        value = self._call(method, answer)
        assert isinstance(value, answer)
        return value
