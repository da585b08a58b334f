"""Who belongs to a group, and the next step towards who should. Pure.

A configuration is an entry of the group's own log. It is in force from the moment at which it is
appended, committed or not, and a cut of the log takes it back (Ongaro's thesis, 4.1). One
configuration differs from the one before by one voter at most, so that any majority of the one
shares a member with any majority of the other; learners may come and go freely.

A member is a node *and* its incarnation, the life of its data folder. A node that comes back with
an empty disk has forgotten its votes and acknowledgements, so it is another member: it must not
count until a configuration, decided without it, names its new incarnation as a voter.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgpack

from leveret.consensus.errors import BadEntry
from leveret.transport import NodeId

NODES_MAX = 256
"""Nodes of one configuration; a cluster has seldom more than seven."""

Members = Mapping[NodeId, int]
"""Nodes and their incarnations."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """The members of a group. Learners get the log, and neither vote nor count."""

    voters: Members = field(default_factory=dict)
    learners: Members = field(default_factory=dict)

    def incarnation(self, node: NodeId) -> int | None:
        """Return the incarnation of a member; None for a node that is none."""
        found = self.voters.get(node)
        return self.learners.get(node) if found is None else found

    @property
    def nodes(self) -> list[NodeId]:
        """All members' nodes, ascending."""
        return sorted({**self.voters, **self.learners})

    def is_majority(self, count: int) -> bool:
        """Whether so many voters decide."""
        return count * 2 > len(self.voters)


def encode_configuration(configuration: Configuration) -> bytes:
    """Return the bytes of a configuration."""
    rows = [sorted(part.items()) for part in (configuration.voters, configuration.learners)]
    return bytes(msgpack.packb(rows))


def decode_configuration(data: bytes | memoryview) -> Configuration:
    """Return the configuration in `data`.

    Raises:
        BadEntry: it is none.
    """
    try:
        voters, learners = msgpack.unpackb(
            data, use_list=False, max_array_len=NODES_MAX, max_map_len=0, max_ext_len=0
        )
        parts = [dict(rows) for rows in (voters, learners)]
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise BadEntry("no configuration") from error
    for part in parts:
        for node, incarnation in part.items():
            if not (type(node) is int and 0 < node < 65536 and type(incarnation) is int):
                raise BadEntry("a configuration with something else than nodes")
    if not parts[0] or parts[0].keys() & parts[1].keys():
        raise BadEntry("a configuration without voters, or with a node in both roles")
    return Configuration(*parts)


class Configurations:
    """The configurations of one log, oldest first, each with the index of its entry.

    Invariant: there is at least one, which no cut takes away.
    """

    def __init__(self, index: int, configuration: Configuration) -> None:
        self._indexes = [index]
        self._known = [configuration]

    @property
    def latest(self) -> Configuration:
        """The one in force."""
        return self._known[-1]

    @property
    def latest_index(self) -> int:
        """Where it stands in the log."""
        return self._indexes[-1]

    def at(self, index: int) -> Configuration:
        """Return the one that was in force behind entry `index`."""
        return self._known[bisect_right(self._indexes, index) - 1]

    def add(self, index: int, configuration: Configuration) -> None:
        """Note the configuration of entry `index`, once; in any order."""
        at = bisect_left(self._indexes, index)
        if at == len(self._indexes) or self._indexes[at] != index:
            self._indexes.insert(at, index)
            self._known.insert(at, configuration)

    def cut_from(self, index: int) -> None:
        """The entries from `index` on are gone."""
        at = max(bisect_left(self._indexes, index), 1)
        del self._indexes[at:], self._known[at:]


def differ_by_one(one: Configuration, other: Configuration) -> bool:
    """Whether at most one voter differs, so that each majority shares a member with the other's."""
    return len(one.voters.items() ^ other.voters.items()) <= 1


def next_configuration(
    now: Configuration,
    desired: Members,
    *,
    is_linked: Callable[[NodeId], bool],
    is_caught_up: Callable[[NodeId], bool],
) -> Configuration | None:
    """Return the next step from `now` to `desired`, or None if there is none to take now.

    is_linked: whether a member is reached, oneself included.
    is_caught_up: whether a learner holds nearly all of the log.

    Learners come and go at once. Of the voters one changes: a replaced one goes first (it holds
    nothing any more), then one that is no longer desired, then a learner that has caught up
    becomes one. No step is taken that would leave the group without a majority that is linked;
    then the one after it may be.
    """
    voters, learners = dict(now.voters), dict(now.learners)
    for node in [node for node in learners if node not in desired]:
        del learners[node]
    for node, incarnation in desired.items():
        if node not in voters:
            learners[node] = max(incarnation, learners.get(node, 0))
    ready = [node for node in sorted(now.learners) if node in desired and is_caught_up(node)]
    ready = [node for node in ready if learners[node] == now.learners[node]]
    for candidate in _steps(voters, learners, desired, ready=ready):
        if candidate != now and _is_able(candidate, is_linked):
            return candidate
    return None


def _steps(
    voters: Members, learners: Members, desired: Members, *, ready: Sequence[NodeId]
) -> Iterator[Configuration]:
    if len(voters) > 1:
        for node, incarnation in sorted(voters.items()):
            wanted = desired.get(node)
            if wanted is not None and wanted > incarnation:
                yield Configuration(_without(voters, node), {**learners, node: wanted})
        for node in sorted(voters):
            if node not in desired:
                yield Configuration(_without(voters, node), learners)
    for node in ready:
        yield Configuration({**voters, node: learners[node]}, _without(learners, node))
    yield Configuration(voters, learners)


def _without(members: Members, node: NodeId) -> Members:
    return {other: incarnation for other, incarnation in members.items() if other != node}


def _is_able(configuration: Configuration, is_linked: Callable[[NodeId], bool]) -> bool:
    """Whether a configuration can commit anything with the links that there are."""
    return configuration.is_majority(sum(map(is_linked, configuration.voters)))
