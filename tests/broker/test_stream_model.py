"""Where readers of a stream begin and what retention leaves, against a model of a few lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st

from leveret.actors import Ref
from leveret.broker.messages import QueueMessage, Start
from leveret.broker.queues import machine
from leveret.broker.queues.features import Retention
from leveret.broker.queues.incoming import Origin
from leveret.broker.queues.seams import Alarm
from leveret.broker.queues.state import QueueState
from leveret.broker.queues.stream_lead import StreamLead
from tests.broker.alone import NODE, Alone

UID = 7
READER = 5
BEGIN_MS = 1_000_000_500


@dataclass
class Model:
    """The rules, as short as they can be said. A message: its offset, when it came, its bytes."""

    retention: Retention
    kept: list[tuple[int, int, int]] = field(default_factory=list)
    next: int = 0
    last_entry: int = 0
    second: int = 0

    def publish(self, sizes: Sequence[int], now_ms: int) -> None:
        self.second = max(self.second, now_ms // 1_000)
        self.last_entry = self.next
        for size in sizes:
            self.kept.append((self.next, self.second, size))
            self.next += 1

    def retain(self, now_ms: int) -> None:
        age_ms, bytes_max = self.retention.max_age_ms, self.retention.max_bytes
        if age_ms is not None:
            self.kept = [m for m in self.kept if (m[1] + 1) * 1_000 > now_ms - age_ms]
        while bytes_max is not None and len(self.kept) > 1 and self.size > bytes_max:
            del self.kept[0]

    @property
    def size(self) -> int:
        return sum(size for _, _, size in self.kept)

    def reads(self, start: Start, now_ms: int) -> list[int]:
        """Return the offsets that a reader gets now."""
        offsets = [offset for offset, _, _ in self.kept]
        match start:
            case "first", _:
                return offsets
            case "last", _:
                return [offset for offset in offsets if offset >= self.last_entry]
            case "offset", number:
                return [offset for offset in offsets if offset >= number]
            case "time", time_ms:
                return [offset for offset, came, _ in self.kept if came >= time_ms // 1_000]
            case "ago", span_ms:
                return self.reads(("time", now_ms - span_ms), now_ms)
        return []


class Lab(Alone):
    """A stream's lead with its log and its clock."""

    def __init__(self, retention: Retention) -> None:
        super().__init__(BEGIN_MS)
        self.retention = retention
        self.pending: list[bytes] = []
        self.alarm_ms: int | None = None
        self.got: list[int] = []
        self.attachments = 0
        self.lead = self.new_lead()

    def new_lead(self) -> StreamLead:
        self.alarm_ms = None
        return StreamLead(
            UID,
            self.retention,
            log=self,
            context=self,
            ref=cast("Ref[QueueMessage]", self),
            hand_on=self.hand_on,
            answer=lambda *_: None,
        )

    # Of the log and the node

    def submit(
        self, command: bytes, done: Callable[[object], None], *, is_urgent: bool = True
    ) -> None:
        self.pending.append(command)

    def exchange(self, vhost: str, name: str) -> None:
        raise AssertionError("streams bury nothing")

    def after(self, delay_s: float, ref: object, message: object) -> Alarm:
        self.alarm_ms = self.clock_ms + round(delay_s * 1000)
        return cast("Alarm", None)

    # What happens

    def turn(self) -> None:
        """Let the lead decide, and the log apply, until nothing is left to do."""
        self.lead.flush()
        while self.pending:
            command = self.pending.pop(0)
            self.entries.append(command)
            self.machine.apply(len(self.entries), self.clock_ms, command, 0)
            self.lead.applied(self.machine.take_effects())
            self.lead.flush()

    def publish(self, sizes: Sequence[int]) -> None:
        records = [b"x" * size for size in sizes]
        self.pending.append(machine.enqueue_stream(UID, records, [Origin("", 0, len(sizes))]))
        self.turn()

    def pass_time(self, span_ms: int) -> None:
        """Let time pass; the lead does something only if it is woken."""
        end_ms = self.clock_ms + span_ms
        while self.alarm_ms is not None and self.alarm_ms <= end_ms:
            self.clock_ms, self.alarm_ms = max(self.alarm_ms, self.clock_ms), None
            self.lead.woken()
            self.turn()
        self.clock_ms = end_ms

    def reads(self, start: Start) -> list[int]:
        """Return the offsets that a new reader gets, without acknowledging any."""
        self.attachments += 1
        self.got = []
        self.lead.serve(NODE, ("follow", self.attachments, READER, True, 1_000, start, ()))
        self.turn()
        self.lead.serve(NODE, ("detach", READER))
        return [sequence - 1 for sequence in self.got]

    def hand_on(
        self,
        number: int,
        attachment: int,
        sequences: Sequence[int],
        redelivered: Sequence[bool],
        records: Sequence[bytes | memoryview],
    ) -> None:
        assert (READER, self.attachments) == (number, attachment)
        assert not any(redelivered)
        self.got += sequences


retentions = st.builds(
    Retention,
    max_age_ms=st.none() | st.integers(1, 5).map(lambda seconds: seconds * 1_000),
    max_bytes=st.none() | st.integers(1, 60),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.lists(st.integers(1, 20), min_size=1, max_size=8)),
        st.tuples(st.just("pass"), st.integers(1, 4_000)),
        st.tuples(st.just("lead"), st.none()),
        st.tuples(st.just("restore"), st.none()),
    ),
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(retention=retentions, steps=steps, data=st.data())
def test_readers_begin_where_they_like_and_retention_leaves_the_rest(
    retention: Retention, steps: list[tuple[str, object]], data: st.DataObject
) -> None:
    lab, model = Lab(retention), Model(retention)

    for step, value in steps:
        if step == "publish":
            lab.publish(cast("list[int]", value))
            model.publish(cast("list[int]", value), lab.clock_ms)
        elif step == "pass":
            lab.pass_time(cast("int", value))
        elif step == "restore":
            snapshot = lab.machine.snapshot()
            lab.machine.restore(snapshot)
            assert lab.machine.snapshot() == snapshot
        else:
            lab.lead = lab.new_lead()
            lab.turn()
        model.retain(lab.clock_ms)

        state = lab.state(UID) or QueueState(UID)
        assert [s - 1 for s, _ in state.live_from(1)] == [offset for offset, _, _ in model.kept]
        assert (state.next - 1, state.size_bytes) == (model.next, model.size)
        now_s = lab.clock_ms // 1_000
        start = data.draw(
            st.one_of(
                st.sampled_from([("first", 0), ("last", 0), ("next", 0)]),
                st.tuples(st.just("offset"), st.integers(-1, model.next + 2)),
                st.tuples(
                    st.just("time"), st.integers(now_s - 9, now_s + 1).map(lambda s: s * 1_000)
                ),
                st.tuples(st.just("ago"), st.integers(1, 9_000)),
            )
        )
        assert lab.reads(start) == model.reads(start, lab.clock_ms), start
