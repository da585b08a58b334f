"""What a leader knows of each other member, and a follower of what it told its leader."""

from __future__ import annotations

from collections import deque

from leveret.consensus.messages import Reply
from leveret.transport import NodeId

BEATS_MAX = 2
"""Beats without an answer, after which a heartbeat is an append again: it says all there is."""

APPEND_AGAIN_BEATS = 10
"""Heartbeats after which one is an append again, though earlier ones are still under way: should
the follower have dropped these, its answer shows it."""


class Follower:
    """What the leader of one term knows about one follower.

    position: the last index sent on this connection; None until the core says where to begin.
    sequence: of the last append; it grows for ever, over connections and terms.
    reset_sequence: resets for appends up to this one are void.
    in_flight: sequence and bytes of appends not yet answered.
    match_index: what the follower acknowledged. Invariant: counted_index <= match_index.
    counted_index: how much of it the core was told.
    is_lost: it lacks what is trimmed here, and gets nothing until it has installed a snapshot.
    safe_index: what it was told last, as `commit_index`.
    heard, heard_s: the last round of beats that it answered, and when it last said anything.
    beats: sent since it said anything.
    beats_in_row: sent since the last append.
    """

    __slots__ = (
        "beats",
        "beats_in_row",
        "commit_index",
        "counted_index",
        "heard",
        "heard_s",
        "in_flight",
        "in_flight_bytes",
        "is_lost",
        "match_index",
        "position",
        "reset_sequence",
        "safe_index",
        "sent_s",
        "sequence",
        "term",
    )

    def __init__(self) -> None:
        self.sequence = 0
        self.begin(term=0)

    def begin(self, *, term: int) -> None:
        """A new term of leadership: nothing that was learnt before counts."""
        self.term = term
        self.match_index = self.counted_index = 0
        self.is_lost = False
        self.heard = 0
        self.heard_s = float("-inf")
        self.reconnect()

    def reconnect(self) -> None:
        """A new connection: what was in flight is gone."""
        self.position: int | None = None
        self.reset_sequence = self.sequence
        self.in_flight: deque[tuple[int, int]] = deque()
        self.in_flight_bytes = 0
        self.sent_s = float("-inf")
        self.commit_index = self.safe_index = -1
        self.beats = self.beats_in_row = 0

    def spoke(self, now_s: float) -> None:
        """It said something that shows that it follows in this term."""
        self.heard_s = now_s
        self.beats = 0

    def knows(self, term: int, last_index: int, commit_index: int, safe_index: int) -> bool:
        """Whether it was told all this, has acknowledged the log, and answers."""
        return (
            self.match_index == last_index == self.position
            and self.commit_index == commit_index
            and self.safe_index == safe_index
            and self.term == term
            and self.beats < BEATS_MAX
        )

    def is_taking(self, term: int) -> bool:
        """Whether it answers, and is busy with what it was sent: perhaps large, perhaps slow."""
        return (
            bool(self.in_flight)
            and self.term == term
            and self.beats < BEATS_MAX
            and self.beats_in_row < APPEND_AGAIN_BEATS
        )

    def appended(self, position: int, commit_index: int, safe_index: int, now_s: float) -> None:
        """An append was sent; the log is sent to it up to `position` now."""
        self.sequence += 1
        self.position = position
        self.commit_index, self.safe_index = commit_index, safe_index
        self.sent_s = now_s
        self.beats_in_row = 0

    def took(self, size: int) -> None:
        """The last append has entries, of so many bytes."""
        self.in_flight.append((self.sequence, size))
        self.in_flight_bytes += size

    def answered(self, sequence: int) -> None:
        while self.in_flight and self.in_flight[0][0] <= sequence:
            self.in_flight_bytes -= self.in_flight.popleft()[1]


class LastReply:
    """The last reply that a follower gave.

    often_s: how often one that says nothing new is given all the same: it is a sign of life.
    """

    def __init__(self, often_s: float) -> None:
        self._often_s = often_s
        self._content: tuple[NodeId, int, int] | None = None
        self._at_s = 0.0

    def forget(self) -> None:
        """Nobody is known to have heard it."""
        self._content = None

    def is_news(self, leader: NodeId, reply: Reply, now_s: float) -> bool:
        """Whether the leader must hear a reply: not each time that it tells a commit index."""
        content = (leader, reply.term, reply.next_index)
        is_old = reply.is_success and not reply.is_reset and content == self._content
        if is_old and now_s - self._at_s < self._often_s:
            return False
        self._content, self._at_s = content, now_s
        return True
