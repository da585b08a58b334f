"""When to stand for election: timers, pre-votes and leader stickiness. Pure; the clock is given.

PySyncObj's own election timers are set to years. This object says *when* an election may begin;
the core then runs it (term, votes, log comparison).

A node that lost contact first asks around without raising its term (pre-vote), and nobody
who still hears a leader agrees. So a node that comes back from isolation finds its own term
unchanged and unseats nobody (Ongaro's thesis, 9.6; leader stickiness: 4.2.3).
"""

from __future__ import annotations

from collections.abc import Collection
from random import Random

from leveret.transport import NodeId

NEVER_S = float("-inf")

HINT_S = (0.02, 0.15)
"""Wait after the link to the leader broke. Short, for a broken link is mostly a dead process;
random, so that two followers seldom stand at once; a hint only, since the pre-vote decides."""


class Elections:
    """The election clock of one member of one group. All times are of one monotonic clock."""

    def __init__(self, node: NodeId, *, rng: Random, timeout_s: tuple[float, float]) -> None:
        assert 0 < timeout_s[0] < timeout_s[1]
        self._node = node
        self._rng = rng
        self._timeout_s = timeout_s
        self._heard_s = NEVER_S  # the last append of a leader of our term or a newer one
        self._deadline_s = NEVER_S
        # The pre-vote under way: the term that was asked for, and who agreed, oneself included.
        self._asked_term = 0
        self._agreed: dict[NodeId, None] = {}
        self._voters: Collection[NodeId] = ()
        # The leader told us to stand: our vote requests pass by the others' stickiness.
        self.is_transfer = False

    def start(self, now_s: float, *, is_alone: bool) -> None:
        """Begin to wait. The only voter stands at once, for nobody else could lead."""
        if not is_alone:
            self.postpone(now_s)

    def postpone(self, now_s: float) -> None:
        """Wait for a whole random timeout from now."""
        low, high = self._timeout_s
        self._deadline_s = now_s + low + (high - low) * self._rng.random()

    def heard(self, now_s: float, *, is_newer_term: bool) -> None:
        """A leader spoke: it is alive, and a pre-vote under way is void."""
        self._heard_s = now_s
        self._asked_term = 0
        if is_newer_term:
            self.is_transfer = False
        # While a transfer is under way the old leader's heartbeats must not postpone it.
        if not self.is_transfer:
            self.postpone(now_s)

    def leader_unreachable(self, now_s: float) -> None:
        """The link to the leader broke: ask around soon."""
        self._heard_s = NEVER_S
        low, high = HINT_S
        self._deadline_s = min(self._deadline_s, now_s + low + (high - low) * self._rng.random())

    def told_to_stand(self) -> None:
        """The leader hands over to us."""
        self.is_transfer = True
        self._asked_term = 0

    def is_due(self, now_s: float) -> bool:
        """Whether the timeout has passed without a leader."""
        return now_s >= self._deadline_s

    def ask(self, now_s: float, term: int, voters: Collection[NodeId]) -> bool:
        """Begin a pre-vote for `term`; True when our own agreement is a majority already.

        voters: whose agreement counts, ourselves included.
        """
        self.is_transfer = False
        self.postpone(now_s)
        self._asked_term = term
        self._voters = voters
        self._agreed = {self._node: None}
        return self._is_majority()

    def agreed(self, peer: NodeId, term: int) -> bool:
        """Count one agreement; True once, when it makes the majority."""
        if term != self._asked_term or peer not in self._voters:
            return False
        self._agreed[peer] = None
        return self._is_majority()

    def _is_majority(self) -> bool:
        if len(self._agreed) * 2 <= len(self._voters):
            return False
        self._asked_term = 0
        return True

    def hears_leader(self, now_s: float) -> bool:
        """Whether a leader spoke within the shortest timeout."""
        return now_s - self._heard_s < self._timeout_s[0]
