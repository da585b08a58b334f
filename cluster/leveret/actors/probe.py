"""What an actor's life looks like from outside: hooks for metrics, logs and tests.

Owns the hooks' signatures, nothing else. Every hook is called once a batch or more rarely, never
once a message, so that watching costs the same whatever the load.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Never

if TYPE_CHECKING:
    from leveret.actors.ref import Ref


class Probe:
    """Hooks that do nothing; override those that you need.

    They run inside the watched actor's task: they must not block, and an error in one is a crash
    of that actor.
    """

    def started(self, ref: Ref[Never]) -> None:
        """A new instance has ended its `start` and begins to take messages."""

    def batch(self, ref: Ref[Never], count: int, busy_s: float) -> None:
        """`count` messages were received and flushed in `busy_s` seconds of trio's clock.

        `busy_s` includes what `flush` waited for (a sync, a socket), since that is how long the
        mailbox stood still.
        """

    def crashed(self, ref: Ref[Never], error: Exception) -> None:
        """An instance died of `error`; another one follows unless the supervisor gives up."""

    def stopped(self, ref: Ref[Never]) -> None:
        """The actor is gone for good, whether gracefully or not."""
