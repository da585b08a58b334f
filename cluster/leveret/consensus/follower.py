"""What a leader knows of each other member."""

from __future__ import annotations

from collections import deque


class Follower:
    """What the leader of one term knows about one follower.

    position: the last index sent on this connection; None until the core says where to begin.
    sequence: of the last append; it grows for ever, over connections and terms.
    reset_sequence: resets for appends up to this one are void.
    in_flight: sequence and bytes of appends not yet answered.
    match_index: what the follower acknowledged. Invariant: counted_index <= match_index.
    counted_index: how much of it the core was told.
    is_lost: it lacks what is trimmed here, and gets nothing until it has installed a snapshot.
    """

    __slots__ = (
        "commit_index",
        "counted_index",
        "in_flight",
        "in_flight_bytes",
        "is_lost",
        "match_index",
        "position",
        "reset_sequence",
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
        self.reconnect()

    def reconnect(self) -> None:
        """A new connection: what was in flight is gone."""
        self.position: int | None = None
        self.reset_sequence = self.sequence
        self.in_flight: deque[tuple[int, int]] = deque()
        self.in_flight_bytes = 0
        self.sent_s = float("-inf")
        self.commit_index = -1

    def answered(self, sequence: int) -> None:
        while self.in_flight and self.in_flight[0][0] <= sequence:
            self.in_flight_bytes -= self.in_flight.popleft()[1]
