"""Everything between the wire and PySyncObj's core: it makes the core safe and fast from outside.

The guard is the core's transport. It decides what the core gets to hear and what leaves the
node, and when; it never touches the core's state. Each closure is a method of its own, named in
the table, so that a test can switch it off and show that its scenario then fails.

| Hole of the core                                            | Closed by                       |
|-------------------------------------------------------------|---------------------------------|
| votes and acknowledgements leave before they are durable    | `_hold`, `release`              |
| the leader counts itself before it is durable               | `_countable`                    |
| H1 receiver: an old append truncates what it already had    | `_without_known`                |
| H1 sender: each acknowledgement rewinds the send position   | `_position`                     |
| H1 sender: a delayed reset rewinds it again                 | `_is_fresh`                     |
| H5: acknowledgements carry no term; votes are counted twice | `_is_of_term`, `_is_first_vote` |
| nobody tells a stale leader                                 | `Stale`, `_raise_term`          |
| H9: the log is searched back one entry a round trip         | `_conflict_start`               |
| an isolated node unseats a leader                           | `elections`, `_is_sticky`       |
| H4: a snapshot commits without a log match                  | `_offer`, `installs`            |
| H6: members change without a rule                           | `reconfigure`, `membership`     |
| a member that lost its disk votes again                     | `_counts`, `_may_vote`          |
| a data folder is back that was replaced                     | `_is_replaced`                  |
| entries that unpickle to anything                           | `messages.parse`                |

The core's messages are the dicts of `syncobj.py` 0.3.17; ours are those of `messages`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from pysyncobj.transport import Transport

from leveret.consensus.beats import Beats
from leveret.consensus.core import (
    CoreMessage,
    CoreNode,
    CoreView,
    append_entries,
    entries_of,
    int_of,
    next_node_idx,
    request_vote,
)
from leveret.consensus.elections import Elections
from leveret.consensus.engine import Durability, EngineConfig, Log
from leveret.consensus.errors import SafetyViolation
from leveret.consensus.follower import Follower, LastReply
from leveret.consensus.journal import CoreEntry, within
from leveret.consensus.matching import conflict_start, without_known
from leveret.consensus.membership import Configuration
from leveret.consensus.messages import (
    Append,
    Beat,
    Heard,
    Installed,
    Message,
    Offer,
    PreVote,
    PreVoteRequest,
    Reply,
    Stale,
    TimeoutNow,
    Vote,
    VoteRequest,
)
from leveret.transport import NodeId

log = logging.getLogger(__name__)


class Guard(Transport):  # type: ignore[misc]  # the base class is untyped
    """The core's transport, and the only caller of its message handler.

    core: set right after the core was built with this transport.
    configuration: the one in force.
    """

    core: CoreView

    def __init__(
        self,
        *,
        node: NodeId,
        incarnation: int,
        log: Log,
        durability: Durability,
        elections: Elections,
        config: EngineConfig,
        now_s: Callable[[], float],
        is_congested: Callable[[NodeId], bool],
    ) -> None:
        super().__init__(None, None, [])
        self._node = node
        self._incarnation = incarnation
        self._log = log
        self._durability = durability
        self._elections = elections
        self._config = config
        self._now_s = now_s
        self._is_congested = is_congested
        self.configuration = Configuration()
        self._nodes: dict[NodeId, CoreNode] = {}
        # The incarnation at the other end of each link.
        self._up: dict[NodeId, int] = {}
        # Every other member.
        self._followers: dict[NodeId, Follower] = {}
        self._votes: set[tuple[NodeId, int]] = set()
        self._ready: list[tuple[NodeId, Message]] = []
        # Promises, and the count of journal records that must be durable before they leave.
        self._held: deque[tuple[int, NodeId, Message]] = deque()
        # While the core handles an append: its sequence number (0 if there is nothing to answer),
        # and the reply that we know better.
        self._replying_to = 0
        self._stands_in = -1  # the term that an election is about to end
        self._matched: int | None = None
        self._last_reply = LastReply(config.heartbeat_s / 2)
        self.safe_index = 0
        self._beats = Beats(node, config)

    # Who counts.

    def reconfigure(self, configuration: Configuration) -> None:
        """Have the core count the voters of `configuration`, and its learners get the log."""
        old, self.configuration = self.configuration, configuration
        for peer in sorted({*old.nodes, *configuration.nodes} - {self._node}):
            before = old.voters.get(peer), old.learners.get(peer)
            after = configuration.voters.get(peer), configuration.learners.get(peer)
            if before == after:
                continue
            if old.incarnation(peer) is not None:
                self._detach(peer, is_voter=before[0] is not None)
                if before[0] is not None:
                    self.core.drop_voter(self._core_node(peer))
            if old.incarnation(peer) != configuration.incarnation(peer):
                self._followers.pop(peer, None)
            if configuration.incarnation(peer) is not None:
                follower = self._followers.setdefault(peer, Follower())
                follower.counted_index = 0  # the core begins anew with it
                if after[0] is not None:
                    self.core.add_voter(self._core_node(peer))
                if self.is_member(peer):
                    self._attach(peer)

    def _attach(self, peer: NodeId) -> None:
        """Tell the core of the link to a member."""
        node = self._core_node(peer)
        if peer in self.configuration.voters:
            self._onNodeConnected(node)
        else:
            self._onReadonlyNodeConnected(node)

    def _detach(self, peer: NodeId, *, is_voter: bool) -> None:
        """Tell the core that the link to a member is gone, or counts no longer."""
        node = self._core_node(peer)
        if is_voter:
            self._onNodeDisconnected(node)
        else:
            self._onReadonlyNodeDisconnected(node)

    def _core_node(self, peer: NodeId) -> CoreNode:
        found = self._nodes.get(peer)
        if found is None:
            found = self._nodes[peer] = CoreNode(peer)
        return found

    def addNode(self, node: CoreNode) -> None:  # noqa: N802
        """Links come and go by themselves."""

    def dropNode(self, node: CoreNode) -> None:  # noqa: N802
        """Links come and go by themselves."""

    def is_member(self, peer: NodeId) -> bool:
        """Whether a node is linked, and is the member that the configuration names."""
        linked = self._up.get(peer)
        return linked is not None and self._counts(peer, linked)

    def _counts(self, peer: NodeId, incarnation: int) -> bool:
        """Whether this incarnation is the member; another one has forgotten what it promised."""
        return self.configuration.incarnation(peer) == incarnation

    def _is_replaced(self, peer: NodeId) -> bool:
        """Whether a linked node's data folder was replaced by a newer one since."""
        known = self.configuration.incarnation(peer)
        return known is not None and self._up[peer] < known

    def _is_voter(self, peer: NodeId) -> bool:
        """Whether a linked node's vote counts."""
        return peer in self.configuration.voters and self.is_member(peer)

    @property
    def is_voter(self) -> bool:
        """Whether this node is a voter."""
        return self._node in self.configuration.voters and self._may_vote()

    def _may_vote(self) -> bool:
        """Whether this node may give its vote: it is known to be a member.

        That includes a learner, which may have become a voter without having heard of it. A
        folder that is empty is in no configuration, and promises nothing.
        """
        return self._counts(self._node, self._incarnation)

    # From the core to the wire. `send` is called by the core in the middle of its handlers.

    def send(self, node: CoreNode, message: CoreMessage) -> bool:
        """Take a message of the core: turn it into one of ours, hold it, or drop it."""
        peer = NodeId(node.id)
        if peer not in self._up:
            return False
        kind = message["type"]
        if kind == "append_entries":
            self._send_append(peer, message)
        elif kind == "next_node_idx":
            reply = self._reply(message)
            if reply.sequence and self._last_reply.is_news(peer, reply, self._now_s()):
                self._hold(peer, reply)
        elif kind == "request_vote":
            request = VoteRequest(
                int_of(message["term"]),
                int_of(message["last_log_index"]),
                int_of(message["last_log_term"]),
                self._elections.is_transfer,
            )
            self._hold(peer, request)
        elif kind == "response_vote":
            self._stands_in = -1  # the core waits for the other one now
            self._hold(peer, Vote(int_of(message["term"])))
        elif kind == "timeout_now":
            self._ready.append((peer, TimeoutNow(int_of(message["term"]))))
        else:
            # A proposal made while leadership was lost, which the core would forward as a pickle.
            # Whoever submitted it does so again.
            assert kind == "apply_command", f"the core sends {kind!r}, which nothing here causes"
        return True

    def _hold(self, peer: NodeId, message: Message) -> None:
        """Keep a promise back until all that it promises is durable (hole D)."""
        self._held.append((self._durability.appended, peer, message))

    def release(self) -> None:
        """Let go of the promises that are durable now."""
        held, durable = self._held, self._durability.durable
        while held and held[0][0] <= durable:
            _, peer, message = held.popleft()
            if peer in self._up:
                self._ready.append((peer, message))

    def waits_for_disk(self) -> bool:
        """Whether there are promises held back, or acknowledgements that do not count yet."""
        if self._held:
            return True
        return self.core.is_leader and any(
            self._followers[peer].match_index > self._followers[peer].counted_index
            for peer in self.configuration.voters
            if peer != self._node
        )

    def take(self) -> list[tuple[NodeId, Message]]:
        """Take what may leave now."""
        self.release()
        ready, self._ready = self._ready, []
        return ready

    def _reply(self, message: CoreMessage) -> Reply:
        next_index = int_of(message["next_node_idx"])
        is_success, is_reset = bool(message["success"]), bool(message["reset"])
        if is_success and self._matched is not None:
            next_index = self._matched + 1
        elif is_reset and next_index <= self._log.last_index:
            next_index = self._conflict_start(next_index)
        return Reply(self.core.term, self._replying_to, next_index, is_success, is_reset)

    def _conflict_start(self, index: int) -> int:
        """Return where the leader should go on, see `matching` (H9)."""
        return conflict_start(self._log, self.core.commit_index, index)

    def _send_append(self, peer: NodeId, message: CoreMessage) -> None:
        """Send the follower what it lacks, in order, at most once a connection.

        The core calls this after every event, and each of its messages carries whatever it
        believes to be missing. It is heeded for where to begin; from there on the position on
        this connection decides, since a link loses nothing but its tail.
        """
        previous = message.get("prevLogIdx")
        assert "transmission" not in message, "the core splits an entry"
        follower, term, now_s = self._followers[peer], int_of(message["term"]), self._now_s()
        if follower.term != term:
            follower.begin(term=term)
        position = 0 if previous is None else self._position(follower, int_of(previous))
        # Without a previous entry the core would send a snapshot. Either way the member lacks what
        # is trimmed here: before it was linked, or while what was in flight filled its window.
        follower.is_lost |= position < self._log.first_index
        if follower.is_lost:
            self._offer(peer, follower, now_s)
            return
        entries: Sequence[CoreEntry] = ()
        has_room = follower.in_flight_bytes < self._config.in_flight_bytes_max
        if has_room and not self._is_congested(peer):
            last, most = self._log.last_index, self._config.append_bytes_max
            if position == previous:
                entries = within(entries_of(message["entries"]), most)
            elif position < last:
                entries = self._log.entries(position + 1, last + 1, bytes_max=most)
        commit = int_of(message["commit_index"])
        if not entries and follower.commit_index == commit:
            if not self._beats.is_due(follower, now_s):
                return
            knows_all = follower.knows(term, self._log.last_index, commit, self.safe_index)
            if knows_all or follower.is_taking(term):
                self._ready.append((peer, self._beats.next(follower, term, now_s)))
                return
        end = entries[-1][1] if entries else position
        follower.appended(end, commit, self.safe_index, now_s)
        if entries:
            follower.took(sum(len(entry[0]) for entry in entries))
        append = Append(
            term,
            follower.sequence,
            position,
            self._log.term_at(position),
            commit,
            self.safe_index,
            tuple((entry[2], entry[0]) for entry in entries),
        )
        # At once, beside our own fsync: an append promises nothing about our own disk, since
        # `_countable` keeps the core from counting us early.
        self._ready.append((peer, append))

    def _offer(self, peer: NodeId, follower: Follower, now_s: float) -> None:
        """Tell a follower that it needs a snapshot, as often as a heartbeat.

        The core would send one that advances the commit index without a log match (H4). Ours is
        fetched beside the core, whose log afterwards begins with it.
        """
        if now_s - follower.sent_s >= self._config.heartbeat_s:
            follower.sent_s = now_s
            self._ready.append((peer, Offer(follower.term, self._log.first_index)))

    def _position(self, follower: Follower, previous: int) -> int:
        """Return the index after which to send on: where this connection stands (H1)."""
        return previous if follower.position is None else follower.position

    # From the wire to the core.

    def connected(self, peer: NodeId, incarnation: int) -> None:
        self._up[peer] = incarnation
        self._last_reply.forget()
        if self.is_member(peer):
            self._followers[peer].reconnect()
            self._attach(peer)

    def disconnected(self, peer: NodeId) -> None:
        if self.is_member(peer):
            self._detach(peer, is_voter=peer in self.configuration.voters)
        self._up.pop(peer, None)
        if self.core.leader == peer:
            self._elections.leader_unreachable(self._now_s())

    def receive(self, peer: NodeId, message: Message) -> None:
        """Give one message of a peer to the core, mended, or answer or drop it.

        Raises:
            SafetyViolation: it contradicts what is committed here, or there are two leaders.
        """
        if peer not in self._up or self._is_replaced(peer):
            return
        match message:
            case Append():
                self._receive_append(peer, message)
            case Reply():
                self._receive_reply(peer, message)
            case VoteRequest():
                self._receive_vote_request(peer, message)
            case Vote(term):
                is_counted = term == self.core.term and self._is_voter(peer)
                if is_counted and self._is_first_vote(peer, term):
                    self._deliver(peer, {"type": "response_vote", "term": term})
            case PreVoteRequest():
                self._receive_pre_vote_request(peer, message)
            case PreVote(term, is_granted, current_term):
                if current_term > self.core.term:
                    self._raise_term(peer, current_term)
                elif (
                    is_granted
                    # A round begun as a candidate may be answered when that term is won already.
                    and not self.core.is_leader
                    and term == self.core.term + 1
                    and self._is_voter(peer)
                    and self._elections.agreed(peer, term)
                ):
                    self.stand()
            case Beat():
                self._receive_beat(peer, message)
            case Heard():
                self._receive_heard(peer, message)
            case Stale(term):
                if term > self.core.term:
                    self._raise_term(peer, term)
            case TimeoutNow(term):
                if term == self.core.term and peer == self.core.leader and self.is_voter:
                    self._elections.told_to_stand()
                    self.stand()
            case Offer(term):
                self._receive_offer(peer, term)
            case Installed(term, index):
                self._receive_installed(peer, term, index)
            case _:
                raise AssertionError(f"{type(message).__name__} is not for the core")

    def _deliver(self, peer: NodeId, message: CoreMessage) -> None:
        self._onMessageReceived(self._core_node(peer), message)

    def _raise_term(self, peer: NodeId, term: int) -> None:
        """Make the core step down into a newer term: a vote request that no log can grant."""
        self._deliver(peer, request_vote(term, -1, -1))

    def _heeds(self, leader: NodeId, term: int) -> bool:
        """Whether a message of a leader is of no old term. Then it is alive.

        Raises:
            SafetyViolation: another one leads the same term.
        """
        core = self.core
        if term < core.term:
            self._ready.append((leader, Stale(core.term)))
            return False
        is_newer_term = term > core.term
        if not is_newer_term and core.leader is not None and core.leader != leader:
            raise SafetyViolation(f"{core.leader} and {leader} both lead term {core.term}")
        self._elections.heard(self._now_s(), is_newer_term=is_newer_term)
        return True

    def _receive_append(self, peer: NodeId, message: Append) -> None:
        if not self._heeds(peer, message.term) or message.term == self._stands_in:
            return
        self.safe_index = max(self.safe_index, message.safe_index)
        previous, previous_term = message.previous_index, message.previous_term
        entries = [
            (command, index, term)
            for index, (term, command) in enumerate(message.entries, previous + 1)
        ]
        commit = message.commit_index
        known = self._without_known(previous, previous_term, entries)
        if known is not None:
            previous, previous_term, entries, matched = known
            commit = min(commit, matched + len(entries))
            self._matched = None if entries else matched
        self._replying_to = message.sequence
        before = previous, previous_term
        self._deliver(peer, append_entries(message.term, before, entries, commit))
        self._matched = None

    def _receive_offer(self, peer: NodeId, term: int) -> None:
        """Follow a leader who has trimmed what is needed next: to the core, it appends nothing.

        So a candidate of its term gives up, and this member knows whom to follow meanwhile.
        """
        if self._heeds(peer, term):
            last = self._log.last_index
            self._replying_to = 0
            end = last, self._log.term_at(last)
            self._deliver(peer, append_entries(term, end, [], self.core.commit_index))

    def _without_known(
        self, previous: int, previous_term: int, entries: list[CoreEntry]
    ) -> tuple[int, int, list[CoreEntry], int] | None:
        """Return what is new of an append, see `matching` (H1)."""
        commit = self.core.commit_index
        return without_known(self._log, commit, previous, previous_term, entries)

    def _receive_reply(self, peer: NodeId, message: Reply) -> None:
        core = self.core
        if message.term > core.term:
            self._raise_term(peer, message.term)
        if not core.is_leader or not self.is_member(peer):
            return
        follower = self._followers[peer]
        if not self._is_of_term(message, follower):
            return
        follower.spoke(self._now_s())
        follower.answered(message.sequence)
        next_index = min(message.next_index, self._log.last_index + 1)
        if message.is_reset:
            if not self._is_fresh(message, follower):
                return
            if next_index <= self._log.first_index:
                follower.is_lost = True
                return
            self._begin_at(peer, follower, next_index)
            return
        if message.is_success:
            follower.match_index = max(follower.match_index, next_index - 1)
            if peer not in self.configuration.voters:
                return  # the core counts nobody else
            next_index = self._countable(follower.match_index) + 1
            follower.counted_index = next_index - 1
        elif peer not in self.configuration.voters:
            return
        self._deliver_reply(peer, next_index, is_success=message.is_success, is_reset=False)

    def _begin_at(self, peer: NodeId, follower: Follower, next_index: int) -> None:
        """Send a follower the log from `next_index` on, whatever was under way."""
        follower.reset_sequence = follower.sequence
        follower.position = None
        follower.in_flight.clear()
        follower.in_flight_bytes = 0
        self._deliver_reply(peer, next_index, is_success=False, is_reset=True)

    def _receive_installed(self, peer: NodeId, term: int, index: int) -> None:
        """A follower that was lost has the log up to `index`, or a snapshot in its place."""
        if term != self.core.term or not self.core.is_leader or not self.is_member(peer):
            return
        follower = self._followers[peer]
        if follower.is_lost and self._log.first_index <= index <= self._log.last_index:
            follower.is_lost = False
            self._begin_at(peer, follower, index + 1)

    def _deliver_reply(
        self, peer: NodeId, next_index: int, *, is_success: bool, is_reset: bool
    ) -> None:
        self._deliver(peer, next_node_idx(next_index, is_success=is_success, is_reset=is_reset))

    def _is_of_term(self, message: Reply, follower: Follower) -> bool:
        """Whether a reply answers this term's leadership, not an older one's (H5)."""
        return message.term == self.core.term == follower.term

    def _is_fresh(self, message: Reply, follower: Follower) -> bool:
        """Whether a reset answers an append that was sent after the last one honoured (H1)."""
        return message.sequence > follower.reset_sequence

    def _countable(self, index: int) -> int:
        """Return how much of an acknowledgement may count.

        The core always counts the leader itself. So nobody else is counted for entries that
        the leader does not hold durably, and none is committed without it.
        """
        return min(index, self._log.durable_index)

    def has_work(self) -> bool:
        """As the leader, whether the core could commit or send something, by what it was told."""
        commit, last = self.core.commit_index, self._log.last_index
        return self.core.is_leader and any(
            follower.counted_index > commit or follower.position != last
            for follower in self._followers.values()
        )

    def count_durable(self) -> bool:
        """Our own log is durable further: count what was acknowledged ahead of it, if any."""
        # The core takes this for a sign of life of the follower, too. That only puts off the
        # stepping down of a leader without a majority, and nothing relies on its time.
        is_any = False
        if not self.core.is_leader:
            return is_any
        for peer in self.configuration.voters:
            if peer == self._node:
                continue
            follower = self._followers[peer]
            countable = self._countable(follower.match_index)
            if follower.term == self.core.term and countable > follower.counted_index:
                follower.counted_index = countable
                self._deliver_reply(peer, countable + 1, is_success=True, is_reset=False)
                is_any = True
        return is_any

    def _is_first_vote(self, peer: NodeId, term: int) -> bool:
        """Whether this is the peer's first vote in the term; the core counts each one (H5)."""
        self._votes = {vote for vote in self._votes if vote[1] == term}
        if (peer, term) in self._votes:
            return False
        self._votes.add((peer, term))
        return True

    def _receive_vote_request(self, peer: NodeId, message: VoteRequest) -> None:
        if message.term < self.core.term:
            self._ready.append((peer, Stale(self.core.term)))
            return
        if not self._may_vote() or (not message.is_transfer and self._is_sticky()):
            return
        if message.term > self.core.term:
            # Somebody stands with a majority behind it: give it the time to win.
            self._elections.postpone(self._now_s())
        self._deliver(peer, request_vote(message.term, message.last_index, message.last_term))

    def _is_sticky(self) -> bool:
        """Whether there is a leader to stay with: we are it, or heard it a moment ago."""
        if self.core.is_leader:
            return True
        return self.core.leader is not None and self._elections.hears_leader(self._now_s())

    def _receive_pre_vote_request(self, peer: NodeId, message: PreVoteRequest) -> None:
        core, last = self.core, self._log.last_index
        is_granted = (
            message.term > core.term
            and self._may_vote()
            and not self._is_sticky()
            and (message.last_term, message.last_index) >= (self._log.term_at(last), last)
        )
        self._ready.append((peer, PreVote(message.term, is_granted, core.term)))

    # Beats and reads.

    def beat(self) -> bool:
        """As a leader who has told everybody everything, beat for those whose heartbeat is due.

        False if the core has more to do than that: somebody does not know or answer something,
        or there is no majority that was heard lately.
        """
        core, now_s = self.core, self._now_s()
        told = core.term, self._log.last_index, core.commit_index, self.safe_index
        linked = {peer: f for peer, f in self._followers.items() if self.is_member(peer)}
        if not all(follower.knows(*told) for follower in linked.values()):
            return False
        if not self._beats.hears_majority(self.configuration, linked, now_s):
            return False
        for peer, follower in linked.items():
            if self._beats.is_due(follower, now_s):
                self._ready.append((peer, self._beats.next(follower, core.term, now_s)))
        return True

    def begin_round(self) -> int:
        """As the leader, ask all voters whether they follow; return the number of the round."""
        self._beats.number += 1
        term, now_s = self.core.term, self._now_s()
        for peer in self.configuration.voters:
            if peer != self._node and self.is_member(peer):
                self._ready.append((peer, self._beats.next(self._followers[peer], term, now_s)))
        return self._beats.number

    def confirmed_round(self) -> int:
        """Return the last round that a majority answered in the present term."""
        return self._beats.confirmed(self.configuration, self._followers, self.core.term)

    def _receive_beat(self, peer: NodeId, message: Beat) -> None:
        core = self.core
        if message.term > core.term or (message.term == core.term and core.leader is None):
            return  # its appends were lost with a link; unanswered, it sends one again
        if self._heeds(peer, message.term):
            self._ready.append((peer, Heard(*message)))

    def _receive_heard(self, peer: NodeId, message: Heard) -> None:
        if not self.core.is_leader or not self.is_member(peer):
            return
        follower = self._followers[peer]
        if not message.term == self.core.term == follower.term:
            return
        follower.heard = max(follower.heard, message.number)
        follower.spoke(self._now_s())
        if peer in self.configuration.voters:
            # Nothing new, but a sign of life for the core, which steps down without a majority.
            self._deliver_reply(peer, follower.counted_index + 1, is_success=True, is_reset=False)

    # Elections of our own.

    def tick(self) -> bool:
        """Ask around for an election when the time has come; whether the core is to stand now."""
        now_s, elections = self._now_s(), self._elections
        if self.core.is_leader or not self.is_voter:
            elections.postpone(now_s)
        elif elections.is_due(now_s):
            term, last = self.core.term + 1, self._log.last_index
            is_majority = elections.ask(now_s, term, self.configuration.voters)
            request = PreVoteRequest(term, last, self._log.term_at(last))
            self._ready.extend((peer, request) for peer in self._up if self._is_voter(peer))
            if is_majority:
                self.stand()
                return True
        return False

    def stand(self) -> None:
        """Make the core stand for election with its next tick, as if its leader had told it to.

        Until then no append of that leader may make a member of it that is no voter.
        """
        self._stands_in = self.core.term
        leader = self.core.leader
        node = None if leader is None else self._core_node(leader)
        self._onMessageReceived(node, {"type": "timeout_now", "term": self.core.term})

    def match(self) -> Mapping[NodeId, int]:
        """Return what each follower acknowledged of this term's log, durable here or not."""
        term, followers = self.core.term, self._followers.items()
        return {peer: f.match_index if f.term == term else 0 for peer, f in followers}

    def counted(self, peer: NodeId) -> int:
        """Return how much of a follower's log the core counts in this term."""
        follower = self._followers.get(peer)
        if follower is None or follower.term != self.core.term:
            return 0
        return follower.counted_index
