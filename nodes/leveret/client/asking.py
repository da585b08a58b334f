"""The trio face of a channel: how it asks the broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from .waiting import wait_for

if TYPE_CHECKING:
    from leveret.amqp import Method

    from .core.channel import ChannelCore

M = TypeVar("M", bound="Method")


class Asking:
    """The part of `Channel` that asks and waits for the answer.

    Every method that does so is a checkpoint; cancelling it does not undo what was asked.
    """

    @property
    def _core(self) -> ChannelCore:
        raise NotImplementedError

    async def _ask(self, method: Method, answer: type[M]) -> M:
        value = await wait_for(self._core.ask(method, answer))
        assert isinstance(value, answer)
        return value
