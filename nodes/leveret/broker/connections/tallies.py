"""How many connections and channels users and virtual hosts have, in the whole cluster.

Each node counts its own, and tells the others what it counts for those users and virtual hosts
that have a limit.  So a limit costs nothing where there is none, and the decision to let a client
in waits for nobody: it is taken from this node's own count and from what the others said last.
Clients that come to several nodes within the time of a message between these may each be let in,
though together they are too many; those of nodes that are out of reach are not counted.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from leveret.broker.access import VirtualHostRefused
from leveret.catalog.commands import Changed, Created, Restored
from leveret.catalog.model import NO_LIMIT, User, VirtualHost
from leveret.transport import NodeId

if TYPE_CHECKING:
    from collections.abc import Collection

    from leveret.broker.directory import Links
    from leveret.catalog import Catalog
    from leveret.catalog.commands import Event

CHANNEL: Final = "tallies"
"""The links' channel on which nodes tell each other what they count."""

Kind = Literal["vhost connections", "user connections", "user channels"]


class Subject(NamedTuple):
    """What is counted, and whose."""

    kind: Kind
    name: str


class _Place(NamedTuple):
    """A connection that was let in."""

    user: str
    vhost: str


class TooManyChannels(Exception):
    """The user has as many channels as it may have; the text is RabbitMQ's."""


class Tallies:
    """The counts of one node, and what it heard of those of the others."""

    def __init__(self, catalog: Catalog, links: Links) -> None:
        self._catalog = catalog
        self._links = links
        self._places: dict[int, _Place] = {}
        self._channels: Counter[int] = Counter()
        """Open channels by the number of their connection."""
        self._own: Counter[Subject] = Counter()
        self._others: dict[int, dict[Subject, int]] = {}
        """What each other node said last."""
        catalog.on_change(self._catalog_changed)
        links.on_message(CHANNEL, self._peer_says)
        links.on_up(self._link_up)
        links.on_down(self._link_down)

    def enter(self, number: int, user: str, vhost: str) -> None:
        """Let a connection of this node in, and count it until `leave`.

        Raises:
            VirtualHostRefused: the virtual host or the user has as many as it may have, or the
                virtual host is missing; nothing is counted.
        """
        known = self._catalog.model.vhost(vhost)
        if known is None:
            raise VirtualHostRefused(f"vhost {vhost} not found")
        of_vhost, of_user = Subject("vhost connections", vhost), Subject("user connections", user)
        if self._is_full(of_vhost):
            raise VirtualHostRefused(
                f"access to vhost '{vhost}' refused for user '{user}': "
                f"connection limit ({self._limit(of_vhost)}) is reached"
            )
        if self._is_full(of_user):
            raise VirtualHostRefused(
                f"connection refused for user '{user}': "
                f"user connection limit ({self._limit(of_user)}) is reached"
            )
        self._places[number] = _Place(user, vhost)
        self._count(of_vhost, 1)
        self._count(of_user, 1)

    def leave(self, number: int) -> None:
        """Count a connection no more, nor the channels that it has."""
        place = self._places.pop(number)
        self._count(Subject("vhost connections", place.vhost), -1)
        self._count(Subject("user connections", place.user), -1)
        channels = self._channels.pop(number, 0)
        if channels:
            self._count(Subject("user channels", place.user), -channels)

    def open_channel(self, number: int) -> None:
        """Let a connection have one more channel.

        Raises:
            TooManyChannels: its user has as many as it may have.
        """
        subject = Subject("user channels", self._places[number].user)
        if self._is_full(subject):
            raise TooManyChannels(
                f"number of channels opened for user '{subject.name}' has reached the maximum "
                f"allowed user limit of ({self._limit(subject)})"
            )
        self._channels[number] += 1
        self._count(subject, 1)

    def close_channel(self, number: int) -> None:
        """Count one channel less, if the connection is counted still."""
        if self._channels[number] > 0:
            self._channels[number] -= 1
            self._count(Subject("user channels", self._places[number].user), -1)

    def _count(self, subject: Subject, change: int) -> None:
        self._own[subject] += change
        if not self._own[subject]:
            del self._own[subject]
        if self._limit(subject) != NO_LIMIT:
            for node in self._links.up:
                self._tell(NodeId(node), subject)

    def _is_full(self, subject: Subject) -> bool:
        limit = self._limit(subject)
        if limit == NO_LIMIT:
            return False
        elsewhere = sum(counts.get(subject, 0) for counts in self._others.values())
        return self._own[subject] + elsewhere >= limit

    def _limit(self, subject: Subject) -> int:
        model = self._catalog.model
        if subject.kind == "vhost connections":
            vhost = model.vhost(subject.name)
            return NO_LIMIT if vhost is None else vhost.connections_max
        user = model.user(subject.name)
        if user is None:
            return NO_LIMIT
        return user.connections_max if subject.kind == "user connections" else user.channels_max

    # What nodes tell each other

    def _tell(self, node: NodeId, subject: Subject) -> None:
        self._links.send(node, CHANNEL, (*subject, self._own[subject]))

    def _tell_all(self, nodes: Collection[int]) -> None:
        for subject in list(self._own):
            if self._limit(subject) != NO_LIMIT:
                for node in nodes:
                    self._tell(NodeId(node), subject)

    def _catalog_changed(self, event: Event) -> None:
        match event:
            case Created(User() | VirtualHost()) | Changed(User() | VirtualHost()) | Restored() if (
                self._own
            ):
                self._tell_all(self._links.up)

    def _link_up(self, node: NodeId) -> None:
        self._tell_all([node])

    def _link_down(self, node: NodeId) -> None:
        self._others.pop(node, None)

    def _peer_says(self, node: NodeId, payload: object) -> None:
        match payload:
            case (
                ("vhost connections" | "user connections" | "user channels") as kind,
                str(name),
                int(count),
            ):
                self._others.setdefault(node, {})[Subject(kind, name)] = count
            case _:
                pass
