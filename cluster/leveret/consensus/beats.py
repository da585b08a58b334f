"""Beats: what a leader says that has nothing to say, and how it learns that it still leads.

A beat stands for an empty append to a follower that has been told everything. It carries the
number of a round; an answer to that number or a later one says that the follower followed in
this term after the round had begun.
"""

from __future__ import annotations

from collections.abc import Mapping

from leveret.consensus.engine import EngineConfig
from leveret.consensus.follower import Follower
from leveret.consensus.membership import Configuration
from leveret.consensus.messages import Beat
from leveret.transport import NodeId


class Beats:
    """The rounds of one member. They go on over its leaderships.

    number: of the present round.
    """

    def __init__(self, node: NodeId, config: EngineConfig) -> None:
        self._node = node
        self._config = config
        self.number = 0

    def next(self, follower: Follower, term: int, now_s: float) -> Beat:
        """Return the beat to send to a follower now."""
        follower.sent_s = now_s
        follower.beats += 1
        follower.beats_in_row += 1
        return Beat(term, self.number)

    def is_due(self, follower: Follower, now_s: float) -> bool:
        """Whether a follower has heard nothing for as long as it may."""
        return now_s - follower.sent_s >= self._config.heartbeat_s

    def hears_majority(
        self, configuration: Configuration, linked: Mapping[NodeId, Follower], now_s: float
    ) -> bool:
        """Whether enough voters spoke lately that the core need not think of stepping down."""
        lately_s = now_s - self._config.quorum_timeout_s / 2
        heard = sum(
            peer in configuration.voters and follower.heard_s > lately_s
            for peer, follower in linked.items()
        )
        return configuration.is_majority(heard + (self._node in configuration.voters))

    def confirmed(
        self, configuration: Configuration, followers: Mapping[NodeId, Follower], term: int
    ) -> int:
        """Return the last round in which a majority of the voters followed this leader of `term`.

        A later leader needs a vote of that majority. So when the round began there was none, and
        all that was committed then was known here.
        """
        others = [followers[peer] for peer in configuration.voters if peer != self._node]
        heard = [follower.heard for follower in others if follower.term == term]
        if self._node in configuration.voters:
            heard.append(self.number)
        heard.sort(reverse=True)
        needed = len(configuration.voters) // 2
        return heard[needed] if needed < len(heard) else 0
