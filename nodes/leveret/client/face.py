"""What a connection tells of itself, in both faces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .core.connection import State
from .errors import ConnectionLost
from .results import Guarantee, statistics_of

if TYPE_CHECKING:
    from .address import Address
    from .attempts import Attempts
    from .core.connection import ConnectionCore


CUT_OFF_S: Final = 0.5
"""How long a connection stays at a node that says that it is cut off: the node has waited for a
change of leader before it said so, and publishers are to be silent for less than 3 s in all."""
CUT_OFF_AGAIN_S: Final = 2.0
"""The same where it came from such a node: it may be that no node has a majority, and then nobody
is helped by clients that go round."""
_LATELY_S: Final = 5.0


class ConnectionFace:
    """The part of `Connection` that only looks."""

    def __init__(self, core: ConnectionCore, attempts: Attempts) -> None:
        self._core = core
        self._attempts = attempts
        self._address: Address | None = None
        self._left_s = float("-inf")

    @property
    def is_connected(self) -> bool:
        """Whether there is a broker at the other end at this moment."""
        return self._core.state is State.READY

    @property
    def blocked(self) -> str | None:
        """Why the broker takes no publishes now, None if it does; `publish` waits meanwhile."""
        return self._core.blocked

    @property
    def guarantee(self) -> Guarantee:
        """How often the broker may have a confirmed message, see `leveret.client.Guarantee`."""
        return statistics_of(self._core).guarantee

    @property
    def server_properties(self) -> dict[str, object]:
        """Product, version, capabilities and what else the broker says of itself."""
        return dict(self._core.server_properties)

    @property
    def addresses(self) -> list[str]:
        """Where the broker may be found: the given addresses, and those that it announced."""
        return [str(address) for address in self._attempts.addresses]

    @property
    def address(self) -> str | None:
        """The address that is, or was last, connected to."""
        return None if self._address is None else str(self._address)

    @property
    def _is_better_left(self) -> bool:
        """Whether the node is cut off, and there are others."""
        core = self._core
        return core.is_cut_off and core.is_robust and len(self._attempts.addresses) > 1

    def _patience_s(self, now_s: float) -> float:
        """Return how long to stay at a node that is cut off."""
        return CUT_OFF_AGAIN_S if now_s - self._left_s < _LATELY_S else CUT_OFF_S

    def _leave(self, now_s: float) -> ConnectionLost:
        """Note that a node is left because it is cut off; what to tell of that."""
        self._left_s = now_s
        return ConnectionLost(f"the node is cut off: {self._core.blocked}")

    def _learn_addresses(self) -> None:
        self._attempts.learn(self._core.server_properties.get("cluster_addresses"))
