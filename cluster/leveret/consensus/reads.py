"""Reading what is committed without an entry of one's own (Ongaro's thesis, 6.4).

Whoever wants to read asks the leader. That one notes how far the log is committed, makes sure by
a round of beats that it still leads, and grants the read: up to that index. The asker reads when
its own machine has come so far. Nothing here trusts a clock.

A request or a grant may be lost, with a link or with a leadership. The asker asks again; a grant
that comes late, even from an earlier leader, is true: it was asked for after the reader came. So
it counts, also when it was asked for again meanwhile: on a long way every answer comes later than
that. A grant to a former life of this node is none: numbers grow from one life to the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from leveret.consensus.engine import Engine
from leveret.consensus.messages import Message, ReadGrant, ReadRequest
from leveret.transport import NodeId

Reader = Callable[[], None]

NUMBER_BITS = 20
"""Of a request's number, those below the boot of the node that makes it."""


class Reads:
    """Both parts, on one member."""

    def __init__(self, node: NodeId, boot: int, send: Callable[[NodeId, Message], object]) -> None:
        self._node = node
        self._send = send
        self._readers = Readers(boot)
        self._grants = Grants()

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits, here or elsewhere."""
        return self._readers.is_empty and not self.are_asked_for

    @property
    def are_asked_for(self) -> bool:
        """Whether a round is under way."""
        return self._grants.is_waiting

    def add(self, reader: Reader) -> None:
        """Have `reader` called once all is applied here that is committed now."""
        self._readers.add(reader)

    def asked(self, node: NodeId, number: int) -> None:
        """As a ready leader, take another member's request."""
        self._grants.add(node, number)

    def granted(self, number: int, index: int) -> None:
        """Take the leader's answer."""
        self._readers.granted(number, index)

    def rewind(self) -> None:
        """The link to the leader is another one."""
        self._readers.rewind()

    def begin_anew(self) -> None:
        """Leader, term or readiness have changed."""
        self._grants.clear()
        self._readers.rewind()

    def tick(self, engine: Engine, now_s: float, stall_s: float) -> None:
        """Try again what may have been lost."""
        if self._readers.is_stalled(now_s, stall_s):
            self._readers.rewind()
        if self._grants.is_waiting:
            # Somebody was not linked, or did not know yet who leads.
            engine.begin_read()

    def work(self, engine: Engine, leader: NodeId | None, now_s: float) -> None:
        """Ask on behalf of this node's readers, and grant what others asked.

        leader: whom to ask, this node perhaps; None if there is nobody in reach.
        """
        number = None if leader is None else self._readers.ask(now_s)
        if number is not None and leader is not None:
            if leader == self._node:
                self._grants.add(leader, number)
            else:
                self._send(leader, ReadRequest(number))
        grants = self._grants
        if grants.wants_round and (begun := engine.begin_read()) is not None:
            grants.begun(*begun)
        if grants.is_waiting:
            for node, asked, index in grants.confirmed(engine.confirmed_read):
                if node == self._node:
                    self._readers.granted(asked, index)
                else:
                    self._send(node, ReadGrant(asked, index))

    def tell(self, applied_index: int) -> None:
        """Call those that may read now."""
        for read in self._readers.reached(applied_index):
            read()


class Readers:
    """The asker's part: those of one node that wait to read.

    boot: grows with each start of the node, by more than the thousandth part of the requests that
        it makes in a life: it is a time in milliseconds.
    """

    def __init__(self, boot: int) -> None:
        self._numbers = count((boot << NUMBER_BITS) + 1)
        self._open: list[Reader] = []
        self._asked: dict[int, list[Reader]] = {}
        """By the first request that asked for them, ascending."""
        self._must_ask_again = False
        self._granted: list[tuple[int, int, list[Reader]]] = []  # a heap by index, then number
        self._asked_s = 0.0

    def add(self, reader: Reader) -> None:
        """Keep one more; it must not join those that have asked already."""
        self._open.append(reader)

    @property
    def is_empty(self) -> bool:
        """Whether nobody waits."""
        return not (self._open or self._asked or self._granted)

    def ask(self, now_s: float) -> int | None:
        """Return the number of the request to send to the leader now, if any."""
        if not self._open and not self._must_ask_again:
            return None
        number = next(self._numbers)
        if self._open:
            self._asked[number], self._open = self._open, []
        self._must_ask_again = False
        self._asked_s = now_s
        return number

    def is_stalled(self, now_s: float, after_s: float) -> bool:
        """Whether a request is without an answer for a time."""
        return bool(self._asked) and now_s - self._asked_s > after_s

    def rewind(self) -> None:
        """Have everybody ask again who has no answer."""
        self._must_ask_again = bool(self._asked)

    def granted(self, number: int, index: int) -> None:
        """Take the leader's answer: for all that came before this request was made."""
        for first in [first for first in self._asked if first <= number]:
            heappush(self._granted, (index, first, self._asked.pop(first)))
        self._must_ask_again = self._must_ask_again and bool(self._asked)

    def reached(self, applied_index: int) -> list[Reader]:
        """Return those that may read now."""
        readers: list[Reader] = []
        while self._granted and self._granted[0][0] <= applied_index:
            readers += heappop(self._granted)[2]
        return readers


class Grants:
    """The leader's part: requests whose round is under way. Lost with the leadership."""

    def __init__(self) -> None:
        self._asked: list[tuple[NodeId, int]] = []
        self._waiting: deque[tuple[int, int, list[tuple[NodeId, int]]]] = deque()

    def clear(self) -> None:
        """Forget everything: leadership was lost or won."""
        self._asked.clear()
        self._waiting.clear()

    def add(self, node: NodeId, number: int) -> None:
        """Take the request `number` of a node."""
        self._asked.append((node, number))

    @property
    def wants_round(self) -> bool:
        """Whether somebody has asked since the last round began."""
        return bool(self._asked)

    @property
    def is_waiting(self) -> bool:
        """Whether a round is to be confirmed."""
        return bool(self._waiting)

    def begun(self, round_number: int, index: int) -> None:
        """Note that a round began for all that have asked, at this commit index."""
        self._waiting.append((round_number, index, self._asked))
        self._asked = []

    def confirmed(self, round_number: int) -> list[tuple[NodeId, int, int]]:
        """Return node, number and index of each read that this round lets go."""
        granted: list[tuple[NodeId, int, int]] = []
        while self._waiting and self._waiting[0][0] <= round_number:
            _, index, asked = self._waiting.popleft()
            granted += [(node, number, index) for node, number in asked]
        return granted
