"""Exactly once and in order, whatever becomes of the batches on their way."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leveret.consensus import BadEntry, BadSnapshot
from leveret.consensus.entries import Batch, decode_entry, encode_commands, encode_entry
from leveret.consensus.entries import split_commands as split
from leveret.consensus.sessions import (
    BATCH_BYTES_MAX,
    BATCHES_IN_FLIGHT_MAX,
    GATHER_BYTES,
    GATHER_FROM,
    SLOW_BYTES_PER_S,
    Admission,
    Intake,
    Outbox,
    SessionTable,
)
from leveret.transport import NodeId

ONE = NodeId(1)


def batch(sequence: int, *, boot: int = 1, node: int = 1) -> Batch:
    return Batch(NodeId(node), boot, sequence, 1, encode_commands([b"%d" % sequence]))


class World:
    """Two submitters, leaders that come and go, a log, and its application."""

    def __init__(self) -> None:
        self.outboxes = {NodeId(node): Outbox(NodeId(node), boot=5) for node in (1, 2)}
        self.submitted: dict[NodeId, list[bytes]] = {node: [] for node in self.outboxes}
        self.told: dict[NodeId, list[object]] = {node: [] for node in self.outboxes}
        self.wire: deque[Batch] = deque()
        self.intake = Intake()
        self.unapplied: deque[bytes] = deque()
        self.table = SessionTable()
        self.applied: dict[NodeId, list[bytes]] = {node: [] for node in self.outboxes}

    def submit(self, node: NodeId, *, large: bool) -> None:
        command = b"%d" % len(self.submitted[node])
        if large:
            command = command.ljust(GATHER_BYTES, b".")
        self.submitted[node].append(command)
        self.outboxes[node].add(command, self.told[node].append)

    def send(self, node: NodeId) -> None:
        self.wire.extend(self.outboxes[node].to_send(0.0))

    def rewind(self, node: NodeId) -> None:
        boot, sequence = self.intake.next(node, self.table)
        self.outboxes[node].rewind(sequence if boot == 5 else 0)

    def arrive(self, at: int, *, again: bool) -> None:
        if self.wire:
            self.wire.rotate(-at)
            self.intake.offer(self.wire[0] if again else self.wire.popleft(), self.table)

    def propose(self) -> None:
        batches = self.intake.take()
        if batches:
            self.unapplied.append(encode_entry(7, batches))

    def apply(self) -> None:
        if not self.unapplied:
            return
        for found, _ in decode_entry(self.unapplied.popleft()).batches:
            if self.table.admit(found):
                commands = [command for command, _ in split(found)]
                self.applied[found.node] += commands
                done = self.outboxes[found.node].applied(found.sequence, 0.0)
                for then, command in zip(done, commands, strict=True):
                    then(command)

    def depose(self, *, lose: int) -> None:
        """A new leader: entries at the end of the log are lost, then the rest is applied."""
        for _ in range(min(lose, len(self.unapplied))):
            self.unapplied.pop()
        while self.unapplied:
            self.apply()
        self.intake.clear()


node = st.sampled_from([NodeId(1), NodeId(2)])
step = st.one_of(
    st.tuples(st.just("submit"), node, st.booleans()),
    st.tuples(st.just("send"), node),
    st.tuples(st.just("rewind"), node),
    st.tuples(st.just("arrive"), st.integers(0, 5), st.booleans()),
    st.tuples(st.just("lose"), st.integers(0, 5)),
    st.tuples(st.just("propose")),
    st.tuples(st.just("apply")),
    st.tuples(st.just("depose"), st.integers(0, 3)),
)


@settings(max_examples=300)
@given(st.lists(step, max_size=80))
def test_each_command_is_applied_once_and_in_order(steps: list[tuple[object, ...]]) -> None:
    world = World()

    for name, *given_ in steps:
        match name, given_:
            case "submit", [who, bool(large)]:
                world.submit(who, large=large)  # type: ignore[arg-type]
            case "arrive", [int(at), bool(again)]:
                world.arrive(at, again=again)
            case "lose", [int(at)]:
                world.wire.rotate(-at)
                if world.wire:
                    world.wire.popleft()
            case "depose", [int(lose)]:
                world.depose(lose=lose)
            case str(), _:
                getattr(world, name)(*given_)
        for who, applied in world.applied.items():
            assert world.submitted[who][: len(applied)] == applied
            assert applied == world.told[who]
    for _ in range(200):
        for who in world.outboxes:
            world.rewind(who)
            world.send(who)
        for _ in range(len(world.wire)):
            world.arrive(0, again=False)
        world.propose()
        world.apply()

    assert world.submitted == world.applied
    assert world.submitted == world.told
    assert [0, 0] == [outbox.pending_bytes for outbox in world.outboxes.values()]


def test_the_table_drops_repeats_gaps_and_older_boots() -> None:
    table = SessionTable()

    admitted = [
        table.admit(batch(sequence, boot=boot))
        for boot, sequence in [(1, 1), (1, 1), (1, 3), (1, 2), (2, 2), (2, 1), (1, 3), (2, 2)]
    ]

    assert [True, False, False, True, False, True, False, True] == admitted
    assert (2, 2) == table.position(ONE)


def test_the_table_survives_a_snapshot() -> None:
    table = SessionTable()
    for node in (3, 1):
        table.admit(batch(1, boot=9, node=node))
    data = b"head" + table.encode() + b"tail"

    same, offset = SessionTable.decode(data, 4)

    assert b"tail" == data[offset:]
    assert (9, 1) == same.position(NodeId(3))
    with pytest.raises(BadSnapshot):
        SessionTable.decode(table.encode()[:-1], 0)


def test_an_intake_tells_a_gap_from_a_repeat() -> None:
    intake, table = Intake(), SessionTable()

    seen = [intake.offer(batch(sequence), table) for sequence in (2, 1, 1, 2)]

    assert [Admission.GAP, Admission.TAKEN, Admission.REPEAT, Admission.TAKEN] == seen
    assert (1, 3) == intake.next(ONE, table)


def test_commands_gather_while_batches_are_in_flight() -> None:
    outbox = Outbox(ONE, 1)
    for _ in range(GATHER_FROM):
        outbox.add(b"a", lambda _: None)
        assert 1 == len(outbox.to_send(0.0))
    for _ in range(10):
        outbox.add(b"b", lambda _: None)

    assert [] == outbox.to_send(0.0)
    outbox.applied(1, 0.0)
    assert [10] == [sent.commands for sent in outbox.to_send(0.0)]


def test_a_command_that_is_not_urgent_waits_for_company() -> None:
    outbox = Outbox(ONE, 1)
    outbox.add(b"lazy", lambda _: None, is_urgent=False)
    assert [] == outbox.to_send(0.0)

    outbox.add(b"urgent", lambda _: None)
    assert [2] == [sent.commands for sent in outbox.to_send(0.0)]

    outbox.add(b"lazy", lambda _: None, is_urgent=False)
    assert [] == outbox.to_send(0.0)
    outbox.tick(0.0, stall_s=1.0)
    assert [1] == [sent.commands for sent in outbox.to_send(0.0)]


def test_a_large_command_is_not_sent_again_while_it_may_be_under_way() -> None:
    outbox = Outbox(ONE, 1)
    outbox.add(bytes(16 * SLOW_BYTES_PER_S), lambda _: None)
    assert len(outbox.to_send(0.0)) == 1

    outbox.tick(16.0, stall_s=1.0)
    assert [] == outbox.to_send(16.0)
    outbox.tick(17.1, stall_s=1.0)
    assert len(outbox.to_send(17.1)) == 1


def test_what_is_in_flight_is_bounded() -> None:
    outbox = Outbox(ONE, 1)
    for _ in range(100):
        outbox.add(bytes(BATCH_BYTES_MAX // 2), lambda _: None)

    assert BATCHES_IN_FLIGHT_MAX == len(outbox.to_send(0.0))
    assert [] == outbox.to_send(0.0)


@given(st.lists(st.lists(st.binary(max_size=40), max_size=5), max_size=5))
def test_an_entry_gives_back_commands_and_where_they_lie(groups: list[list[bytes]]) -> None:
    batches = [
        Batch(NodeId(node), 2**40, 7, len(commands), encode_commands(commands))
        for node, commands in enumerate(groups)
    ]
    payload = encode_entry(123, batches)

    entry = decode_entry(payload)

    assert 123 == entry.stamp_ms
    assert batches == [found for found, _ in entry.batches]
    for (found, at), commands in zip(entry.batches, groups, strict=True):
        assert commands == [command for command, _ in split(found)]
        for command, offset in split(found):
            assert command == payload[at + offset : at + offset + len(command)]


def test_a_cut_or_padded_entry_is_refused() -> None:
    payload = encode_entry(1, [batch(1)])

    for bad in [*(payload[:size] for size in range(len(payload))), payload + b"x"]:
        with pytest.raises(BadEntry):
            decode_entry(bad)
    for body in (b"", b"\x05\x00\x00\x00a", encode_commands([b"a"]) + b"x"):
        with pytest.raises(BadEntry):
            list(split(Batch(ONE, 1, 1, 1, body)))
