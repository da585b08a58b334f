"""A leader's steps from the members that a group has to those that it is to have.

`membership` knows the steps; this knows the engine: when a step may be taken, who keeps up, and
that a leader that is to go hands over first.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

from leveret.consensus.engine import Engine
from leveret.consensus.membership import Configuration, Members, next_configuration
from leveret.transport import NodeId

log = logging.getLogger(__name__)

LAG_MAX = 64
"""Entries that a learner may lack when it becomes a voter: some milliseconds of the busiest log."""

LAG_TICKS = 5
"""A learner that lacks more becomes one too if it holds what the log held so many ticks ago, which
is less than an election takes. A slow disk may never be nearer under load."""


def is_steered(engine: Engine, desired: Members) -> bool:
    """Whether this member has nothing to do about the group's members."""
    return not desired or not engine.is_ready or engine.configuration == Configuration(desired)


def is_settled(engine: Engine) -> bool:
    """Whether no change of the members is under way, as far as a member knows."""
    return engine.configuration_index <= engine.commit_index


class Steering:
    """Of one group on one node.

    desired: which nodes are to be members; empty if unknown.
    """

    def __init__(self, group: int, node: NodeId, desired: Callable[[], Members]) -> None:
        self._group = group
        self._node = node
        self._desired = desired
        # Where the log ended at the last ticks in which there was a step to take, oldest first.
        self._lasts: deque[int] = deque(maxlen=LAG_TICKS)

    def begin_anew(self) -> None:
        """Leader, term or readiness have changed."""
        self._lasts.clear()

    def tick(self, engine: Engine) -> None:
        """As the leader, take the next step towards the members that are desired."""
        desired = self._desired()
        if is_steered(engine, desired) or engine.transferring_to is not None:
            self._lasts.clear()
            return
        self._lasts.append(engine.last_index)
        if not is_settled(engine):
            return
        following = next_configuration(
            engine.configuration,
            desired,
            is_linked=engine.is_linked,
            is_caught_up=lambda node: self._is_caught_up(engine, node),
        )
        if following is None:
            return
        if self._node not in following.voters:
            match = engine.match()
            successors = [voter for voter in following.voters if engine.is_linked(voter)]
            engine.transfer(max(successors, key=lambda voter: match.get(voter, 0)))
            return
        if engine.propose_configuration(following):
            self._lasts.clear()
            log.info(
                "members change",
                extra={
                    "group": self._group,
                    "voters": list(following.voters),
                    "learners": list(following.learners),
                },
            )

    def _is_caught_up(self, engine: Engine, learner: NodeId) -> bool:
        """Whether a learner would vote and acknowledge at once if it were a voter.

        It votes only once it has a configuration that names its incarnation: before that it could
        not help to elect anybody, though it counts.
        """
        match = engine.match().get(learner, 0)
        if not engine.is_linked(learner) or match < engine.configuration_index:
            return False
        is_steady = len(self._lasts) == LAG_TICKS and match >= self._lasts[0]
        return is_steady or engine.last_index - match <= LAG_MAX
