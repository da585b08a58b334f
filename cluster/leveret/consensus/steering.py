"""A leader's steps from the members that a group has to those that it is to have."""

from __future__ import annotations

import logging

from leveret.consensus.engine import Engine
from leveret.consensus.membership import Configuration, Members, next_configuration
from leveret.transport import NodeId

log = logging.getLogger(__name__)

CAUGHT_UP_LAG_MAX = 64
"""Entries that a learner may lack when it becomes a voter: some milliseconds of the busiest log."""


def is_steered(engine: Engine, desired: Members) -> bool:
    """Whether this member has nothing to do about the group's members."""
    return not desired or not engine.is_ready or engine.configuration == Configuration(desired)


def steer(engine: Engine, desired: Members, *, node: NodeId, group: int) -> None:
    """As the leader, take the next step towards the members that are desired.

    node: this one. group: its number, for the log.
    """
    if is_steered(engine, desired) or engine.transferring_to is not None:
        return
    if engine.configuration_index > engine.commit_index:
        return
    match, last = engine.match(), engine.last_index
    following = next_configuration(
        engine.configuration,
        desired,
        is_linked=engine.is_linked,
        is_caught_up=lambda node: (
            engine.is_linked(node) and last - match.get(node, 0) <= CAUGHT_UP_LAG_MAX
        ),
    )
    if following is None:
        return
    if node not in following.voters:
        successors = [voter for voter in following.voters if engine.is_linked(voter)]
        engine.transfer(max(successors, key=lambda voter: match.get(voter, 0)))
        return
    if engine.propose_configuration(following):
        log.info(
            "members change",
            extra={
                "group": group,
                "voters": list(following.voters),
                "learners": list(following.learners),
            },
        )
