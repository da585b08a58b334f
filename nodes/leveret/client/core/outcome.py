"""Something that is awaited: a slot for a value or an error, and whom to tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Outcome(Generic[T]):
    """Done once, by `succeed` or `fail`; what comes later is ignored.

    notify: called with this outcome when it is done, once; a face sets it to wake whoever waits.
    """

    __slots__ = ("_value", "error", "is_done", "notify")

    def __init__(self) -> None:
        self.is_done = False
        self.error: Exception | None = None
        self.notify: Callable[[Outcome[T]], None] | None = None
        self._value: T | None = None

    def succeed(self, value: T) -> None:
        """End it with a value."""
        if not self.is_done:
            self._value = value
            self._finish()

    def fail(self, error: Exception) -> None:
        """End it with an error."""
        if not self.is_done:
            self.error = error
            self._finish()

    def result(self) -> T:
        """The value of an outcome that is done.

        Raises:
            Exception: the error it was failed with.
        """
        assert self.is_done
        if self.error is not None:
            raise self.error
        return self._value  # type: ignore[return-value]  # T may be None itself

    def _finish(self) -> None:
        self.is_done = True
        notify = self.notify
        if notify is not None:
            self.notify = None
            notify(self)
