"""Exactly-once submission: what a submitter keeps, what the leader admits, what all replicate.

A node gathers commands to batches and numbers them 1, 2, 3 … within its boot. It keeps each one
until it has applied it itself, and sends it as often as needed. The replicated table holds the
last applied number of each node's newest boot; at apply it drops repeats and whatever leaves a
gap. The leader looks ahead in the same way, so that hardly anything is dropped at apply.

So a command is applied once however often its batch is sent, in the order of submission, and
nobody has to find out what became of an entry whose leader fell.

Pure: no clock but the one given, no network.
"""

from __future__ import annotations

import enum
import struct
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from leveret.consensus.entries import (
    BATCH_HEAD_SIZE,
    BATCHES_MAX,
    COMMAND_HEAD_SIZE,
    Batch,
    encode_commands,
)
from leveret.consensus.errors import BadSnapshot
from leveret.transport import NodeId

BATCH_BYTES_MAX = 1024 * 1024
"""Commands of one batch, unless a single one is larger."""

SLOW_BYTES_PER_S = 4 * 1024 * 1024
"""What a busy cluster carries all the same: what is large may take so long until it is applied.
Sent again meanwhile, it would queue behind itself and never come to an end."""

SEND_BYTES_MAX = 16 * 1024 * 1024
"""Batches sent at once, unless a single one is larger."""

BATCHES_IN_FLIGHT_MAX = 8
"""Batches of one node sent and not yet applied; with the size of a batch it bounds what a leader
holds for each node."""

GATHER_FROM = 3
"""Batches, or entries, under way from which on the next one waits until it is worth its while."""

GATHER_BYTES = 64 * 1024
"""While a batch is in flight, wait until so much has come before sending the next: an fsync takes
milliseconds, and a batch costs every member the same whether it is full or not."""

Done = Callable[[object], None]


class Unknown(enum.Enum):
    """The reply to a command that was applied while this node was away.

    A snapshot brought its effect, and the replies are with those who applied it. It is certain
    that the command was applied, once.
    """

    REPLY = "unknown"


_COUNT = struct.Struct("<H")
_SESSION = struct.Struct("<HQQ")


class SessionTable:
    """The replicated part: for each node its newest boot and last applied batch."""

    def __init__(self) -> None:
        self._last: dict[NodeId, tuple[int, int]] = {}

    def position(self, node: NodeId) -> tuple[int, int]:
        """Return boot and last sequence of a node; (0, 0) for one never seen."""
        return self._last.get(node, (0, 0))

    def admit(self, batch: Batch) -> bool:
        """Whether to apply a batch: the next of the newest boot, or the first of a newer one."""
        boot, last = self.position(batch.node)
        if batch.boot > boot:
            last = 0
        if batch.boot < boot or batch.sequence != last + 1:
            return False
        self._last[batch.node] = batch.boot, batch.sequence
        return True

    def encode(self) -> bytes:
        """Return the table for a snapshot."""
        rows = [_SESSION.pack(node, *last) for node, last in sorted(self._last.items())]
        return b"".join((_COUNT.pack(len(rows)), *rows))

    @classmethod
    def decode(cls, data: bytes, offset: int) -> tuple[SessionTable, int]:
        """Return the table at `offset` and the offset after it.

        Raises:
            BadSnapshot: `data` ends within it.
        """
        table = cls()
        try:
            (count,) = _COUNT.unpack_from(data, offset)
            offset += _COUNT.size
            for _ in range(count):
                node, boot, sequence = _SESSION.unpack_from(data, offset)
                table._last[NodeId(node)] = boot, sequence
                offset += _SESSION.size
        except struct.error as error:
            raise BadSnapshot("a snapshot ends within its sessions") from error
        return table, offset


class Admission(enum.Enum):
    """What became of a batch at the leader."""

    TAKEN = "taken"
    REPEAT = "repeat"
    GAP = "gap"


class Intake:
    """The leader's part: batches admitted and not yet in an entry. Lost with the leadership.

    What is in the leader's log of this term is applied in order or not at all, so it suffices to
    look at what was admitted in this term; before that the table is exact, because a leader
    admits nothing until it has applied all earlier terms.
    """

    def __init__(self) -> None:
        self._next: dict[NodeId, tuple[int, int]] = {}
        self._batches: deque[Batch] = deque()
        self.size_bytes = 0

    def clear(self) -> None:
        """Forget everything: leadership was lost or won."""
        self._next.clear()
        self._batches.clear()
        self.size_bytes = 0

    def next(self, node: NodeId, table: SessionTable) -> tuple[int, int]:
        """Return boot and sequence of the batch that would be taken next from a node."""
        boot, last = table.position(node)
        return self._next.get(node, (boot, last + 1))

    def offer(self, batch: Batch, table: SessionTable) -> Admission:
        """Take a batch if it is the next one of its node."""
        boot, expected = self.next(batch.node, table)
        if batch.boot > boot:
            expected = 1
        elif batch.boot < boot:
            return Admission.REPEAT
        if batch.sequence != expected:
            return Admission.REPEAT if batch.sequence < expected else Admission.GAP
        self._next[batch.node] = batch.boot, expected + 1
        self._batches.append(batch)
        self.size_bytes += len(batch.body) + BATCH_HEAD_SIZE
        return Admission.TAKEN

    def is_worth_an_entry(self, under_way: int) -> bool:
        """Whether to make an entry now, while so many are under way."""
        return self.size_bytes >= (GATHER_BYTES if under_way >= GATHER_FROM else 1)

    def take(self) -> list[Batch]:
        """Take batches for one entry: up to `BATCH_BYTES_MAX`, but at least one if any."""
        taken: list[Batch] = []
        size = 0
        while self._batches and len(taken) < BATCHES_MAX:
            more = len(self._batches[0].body) + BATCH_HEAD_SIZE
            if taken and size + more > BATCH_BYTES_MAX:
                break
            taken.append(self._batches.popleft())
            size += more
        self.size_bytes -= size
        return taken


class _Pending(NamedTuple):
    batch: Batch
    done: list[Done]
    size: int


class Outbox:
    """The submitter's part: commands on their way, until this node has applied them.

    pending_bytes: commands not yet applied, headers included.
    """

    def __init__(self, node: NodeId, boot: int) -> None:
        self._node = node
        self._boot = boot
        self._open: deque[tuple[bytes, Done]] = deque()
        self._open_bytes = 0
        self._is_urgent = False
        # Invariant: contiguous sequences; those up to `_sent` went to the present leader.
        self._pending: deque[_Pending] = deque()
        self._last_sequence = 0
        self._sent = 0
        self._progress_s = 0.0
        self.pending_bytes = 0

    def add(self, command: bytes, done: Done, *, is_urgent: bool = True) -> None:
        """Keep a command; it goes with the next batch, which one that is urgent calls for."""
        self._is_urgent |= is_urgent
        self._open.append((command, done))
        size = len(command) + COMMAND_HEAD_SIZE
        self._open_bytes += size
        self.pending_bytes += size

    def tick(self, now_s: float, stall_s: float) -> None:
        """Let go what waits for company, and send again what was sent and of which nothing comes.

        stall_s: how long nothing may be applied, besides the time that large batches take.
        """
        self._is_urgent = bool(self._open)
        under_way = self.pending_bytes - self._open_bytes
        if self._pending and now_s - self._progress_s > stall_s + under_way / SLOW_BYTES_PER_S:
            self.rewind()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is on its way, or waits to be."""
        return not self._open and not self._pending

    @property
    def may_send(self) -> bool:
        """Whether a batch could be made now."""
        return self._may_seal()

    def rewind(self, sequence: int = 0) -> None:
        """Send again from `sequence` on, or everything that is not applied."""
        self._sent = max(sequence - 1, self._last_sequence - len(self._pending))
        self._sent = min(self._sent, self._last_sequence)

    def to_send(self, now_s: float) -> list[Batch]:
        """Give the batches to send to the leader now, and count them as sent.

        Those beyond `SEND_BYTES_MAX` come with the next call.
        """
        while self._may_seal():
            if not self._pending:
                self._progress_s = now_s
            self._seal()
        first = self._last_sequence - len(self._pending)
        batches: list[Batch] = []
        size = 0
        for pending in self._pending:
            if pending.batch.sequence > self._sent and size < SEND_BYTES_MAX:
                batches.append(pending.batch)
                size += pending.size
        if batches and self._sent <= first:
            self._progress_s = now_s
        if batches:
            self._sent = batches[-1].sequence
        return batches

    def _may_seal(self) -> bool:
        if not self._open or len(self._pending) >= BATCHES_IN_FLIGHT_MAX:
            return False
        if self._open_bytes >= GATHER_BYTES:
            return True
        return self._is_urgent and len(self._pending) < GATHER_FROM

    def _seal(self) -> None:
        commands: list[bytes] = []
        done: list[Done] = []
        size = 0
        while self._open:
            command, then = self._open[0]
            more = len(command) + COMMAND_HEAD_SIZE
            if commands and size + more > BATCH_BYTES_MAX:
                break
            self._open.popleft()
            commands.append(command)
            done.append(then)
            size += more
        self._open_bytes -= size
        self._is_urgent &= bool(self._open)
        self._last_sequence += 1
        body = encode_commands(commands)
        batch = Batch(self._node, self._boot, self._last_sequence, len(commands), body)
        self._pending.append(_Pending(batch, done, size))

    def applied(self, sequence: int, now_s: float) -> list[Done]:
        """Drop the oldest batch, which is applied now; return whom to tell."""
        pending = self._pending.popleft()
        assert pending.batch.sequence == sequence, "applied out of order"
        self._sent = max(self._sent, sequence)
        self._progress_s = now_s
        self.pending_bytes -= pending.size
        return pending.done

    def skipped(self, boot: int, sequence: int, now_s: float) -> list[Done]:
        """Drop the batches of `boot` up to `sequence`, applied elsewhere; return whom to tell."""
        done: list[Done] = []
        while boot == self._boot and self._pending and self._pending[0].batch.sequence <= sequence:
            done += self.applied(self._pending[0].batch.sequence, now_s)
        return done
