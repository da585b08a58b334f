"""A queue's lead with all its features at once, against a model of a few lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st

from leveret.actors import Ref
from leveret.amqp.delivery import Record, encode_record, encode_route
from leveret.amqp.fields import Long
from leveret.amqp.properties import Properties
from leveret.broker.messages import PublishRun, QueueMessage
from leveret.broker.queues import machine
from leveret.broker.queues.dead_letters import DeadLetter
from leveret.broker.queues.features import QueueFeatures
from leveret.broker.queues.incoming import Origin
from leveret.broker.queues.lead import UNDER_WAY_MAX, Lead
from leveret.broker.queues.message_life import read_lives
from leveret.broker.queues.seams import Alarm
from tests.broker.alone import NODE, Alone

UID = 7
CONSUMER = 5
PREFETCH = 2
FAR_MARK = 1 << 30


@dataclass
class Message:
    """What the model knows of a message."""

    number: int
    rank: int
    deadline_ms: int | None
    due_ms: int
    returns: int = 0


@dataclass
class Model:
    """The rules, as short as they can be said."""

    features: QueueFeatures
    waiting: list[Message] = field(default_factory=list)
    held: list[Message] = field(default_factory=list)
    delivered: list[int] = field(default_factory=list)
    ended: list[tuple[int, str]] = field(default_factory=list)

    def ready(self, now_ms: int) -> list[Message]:
        return sorted(
            (m for m in self.waiting if m.due_ms <= now_ms), key=lambda m: (m.rank, m.number)
        )

    def end(self, messages: Sequence[Message], reason: str) -> None:
        for message in messages:
            self.waiting.remove(message)
            self.bury(message, reason)

    def bury(self, message: Message, reason: str) -> None:
        if self.features.dead_letter_exchange is not None:
            self.ended.append((message.number, reason))

    def expire(self, now_ms: int, spared: int | None = None) -> None:
        over = [
            m
            for m in self.ready(now_ms)
            if m.deadline_ms is not None and m.deadline_ms <= now_ms and m.number != spared
        ]
        self.end(sorted(over, key=lambda m: m.number), "expired")

    def turn(self, now_ms: int, arrived: int | None = None) -> None:
        self.expire(now_ms, arrived)
        for message in self.ready(now_ms)[: max(PREFETCH - len(self.held), 0)]:
            self.waiting.remove(message)
            self.held.append(message)
            self.delivered.append(message.number)
        self.expire(now_ms)
        if self.features.drops_head and self.features.max_length is not None:
            ready = self.ready(now_ms)
            self.end(ready[: max(len(ready) - self.features.max_length, 0)], "maxlen")

    def takes(self, now_ms: int) -> bool:
        limit = self.features.publish_limit
        return limit is None or limit[0] is None or len(self.ready(now_ms)) < limit[0]


class Lab(Alone):
    """A lead with its log, its clock and one consumer, which no other node can disturb."""

    def __init__(self, features: QueueFeatures) -> None:
        super().__init__(clock_ms=1_000_000)
        self.features = features
        self.pending: list[tuple[bytes, Callable[[object], None]]] = []
        self.replies: list[object] = []
        self.letters: list[DeadLetter] = []
        self.ended: list[tuple[int, str]] = []
        self.delivered: list[int] = []
        self.held: list[tuple[int, int]] = []
        """Sequence and message number of what the consumer holds, in order."""
        self.requests = 0
        self.submit(machine.mark(UID, FAR_MARK), self.replies.append)
        self.lead = self.new_lead()
        self.turn()

    def change(self, features: QueueFeatures) -> None:
        """Let a policy make the queue have other features."""
        self.features = features
        self.lead.change(features)
        self.turn()

    def new_lead(self) -> Lead:
        self.requests += 1
        lead = Lead(
            UID,
            self.features,
            log=self,
            context=self,
            ref=cast("Ref[QueueMessage]", self),
            hand_on=self.hand_on,
            answer=lambda *_: None,
        )
        held = [sequence for sequence, _ in self.held]
        body = (
            "attach",
            self.requests,
            CONSUMER,
            True,
            PREFETCH,
            False,
            False,
            0,
            0,
            None,
            0,
            held,
        )
        lead.serve(NODE, body)
        return lead

    # Of the log and the node

    def submit(
        self, command: bytes, done: Callable[[object], None], *, is_urgent: bool = True
    ) -> None:
        self.pending.append((command, done))

    def exchange(self, vhost: str, name: str) -> Ref[PublishRun]:
        return cast("Ref[PublishRun]", self)

    def tell(self, message: object) -> None:
        if isinstance(message, DeadLetter):
            self.letters.append(message)

    def after(self, delay_s: float, ref: object, message: object) -> Alarm:
        return self

    def cancel(self) -> None:
        pass

    def hand_on(
        self,
        number: int,
        attachment: int,
        sequences: Sequence[int],
        redelivered: Sequence[bool],
        records: Sequence[bytes | memoryview],
    ) -> None:
        assert (number, attachment) == (CONSUMER, self.requests)
        for sequence, record in zip(sequences, records, strict=True):
            message = int(Record(record).body)
            self.delivered.append(message)
            self.held.append((sequence, message))
        sizes = sum(map(len, records))
        self.lead.serve(NODE, ("written", number, attachment, len(records), sizes))

    # Of the test

    def turn(self) -> None:
        """Let the lead and the log work until nothing is left to do."""
        while True:
            self.lead.flush()
            letters, self.letters = self.letters, []
            for letter in letters:
                self.ended.append((int(Record(letter.records[0]).body), letter.reason))
                assert letter.sequence is not None
                at = letter.sequence
                self.submit(machine.settle(UID, [(at, at)]), self.replies.append)
                self.lead.buried(letter)
            if not self.pending and not self.letters:
                return
            pending, self.pending = self.pending, []
            for command, done in pending:
                self.entries.append(command)
                done(self.machine.apply(len(self.entries), self.clock_ms, command, 0))
            self.lead.applied(self.machine.take_effects())

    def publish(self, number: int, ttl_ms: int | None, delay_ms: int | None, priority: int) -> None:
        body = str(number).encode()
        properties = Properties(
            priority=priority,
            expiration=None if ttl_ms is None else str(ttl_ms),
            headers=None if delay_ms is None else {"x-delay": Long(delay_ms)},
        )
        header = properties.encode(len(body))
        records = [encode_record(encode_route("", "q"), header, body)]
        command = machine.enqueue_lives(
            UID,
            records,
            [Origin("", 0, 1)],
            read_lives(records, self.features),
            self.features.publish_limit,
        )
        self.submit(command, self.replies.append)
        self.turn()


def counting(features: QueueFeatures) -> QueueFeatures:
    """Return the features with what follows from the others."""
    return replace(features, counts_returns=features.delivery_limit is not None)


publishes = st.tuples(
    st.just("publish"),
    st.one_of(st.none(), st.none(), st.sampled_from([0, 5, 40])),
    st.one_of(st.none(), st.none(), st.sampled_from([5, 40])),
    st.integers(0, 5),
)
changes = st.fixed_dictionaries(
    {},
    optional={
        "message_ttl_ms": st.sampled_from([None, 0, 20]),
        "max_length": st.sampled_from([None, 1, 2, 3]),
        "overflow": st.sampled_from(["drop-head", "reject-publish"]),
        "delivery_limit": st.sampled_from([None, 0, 1]),
        "dead_letter_exchange": st.sampled_from([None, "dead"]),
    },
)
steps = st.lists(
    st.one_of(
        publishes,
        publishes,
        publishes,
        st.tuples(st.sampled_from(["ack", "requeue", "reject"]), st.integers(0, PREFETCH - 1)),
        st.tuples(st.just("wait"), st.sampled_from([1, 10, 60])),
        st.tuples(st.just("new leader")),
        st.tuples(st.just("policy"), changes),
    ),
    min_size=5,
    max_size=40,
)
features = st.builds(
    QueueFeatures,
    name=st.just("q"),
    dead_letter_exchange=st.just("dead"),
    message_ttl_ms=st.sampled_from([None, None, None, 0, 20]),
    max_length=st.sampled_from([None, 1, 2, 3]),
    overflow=st.sampled_from(["drop-head", "reject-publish"]),
    max_priority=st.sampled_from([0, 3]),
    delivery_limit=st.sampled_from([None, None, 0, 1]),
).map(counting)


@given(features, steps)
@settings(max_examples=300)
def test_a_lead_does_as_the_model_says(
    features: QueueFeatures, steps: list[tuple[object, ...]]
) -> None:
    lab, model, number = Lab(features), Model(features), 0
    for step in steps:
        arrived = None
        match step:
            case ("publish", ttl, delay, int(priority)):
                number += 1
                taken = model.takes(lab.clock_ms)
                refused_before = lab.replies.count(("full", 0))
                lab.publish(number, cast("int | None", ttl), cast("int | None", delay), priority)
                assert (lab.replies.count(("full", 0)) == refused_before) == taken
                if not taken:
                    continue
                ttls = [t for t in (ttl, model.features.message_ttl_ms) if isinstance(t, int)]
                due = lab.clock_ms + (delay if isinstance(delay, int) else 0)
                model.waiting.append(
                    Message(
                        number,
                        -min(priority, features.max_priority),
                        due + min(ttls) if ttls else None,
                        due,
                    )
                )
                arrived = number
            case ("wait", int(span)):
                lab.clock_ms += span
                lab.turn()
            case ("policy", dict() as some):
                model.features = counting(replace(model.features, **some))
                lab.change(model.features)
            case ("new leader",):
                lab.lead = lab.new_lead()
                lab.turn()
            case (str(end), int(place)):
                if place >= len(model.held):
                    continue
                message = model.held.pop(place)
                sequence, held = lab.held.pop(place)
                assert held == message.number
                if end == "requeue":
                    message.returns += model.features.counts_returns
                    limit = model.features.delivery_limit
                    model.waiting.append(message)
                    if limit is not None and message.returns > limit:
                        model.end([message], "delivery_limit")
                    lab.lead.serve(NODE, ("back", CONSUMER, [sequence], True))
                elif end == "reject":
                    model.bury(message, "rejected")
                    lab.lead.serve(NODE, ("reject", CONSUMER, [sequence]))
                else:
                    lab.lead.serve(NODE, ("release", [sequence]))
                    lab.submit(machine.settle(UID, [(sequence, sequence)]), lab.replies.append)
                lab.turn()
        model.turn(lab.clock_ms, arrived)

        assert model.delivered == lab.delivered
        assert [m.number for m in model.held] == [message for _, message in lab.held]
        assert sorted(model.ended) == sorted(lab.ended)
        assert len(model.ready(lab.clock_ms)) == lab.lead.dispatcher.ready
        state = lab.state(UID)
        assert len(model.waiting) + len(model.held) == (0 if state is None else state.live)
        copy = machine.ShardMachine()
        copy.restore(lab.machine.snapshot())
        assert copy.snapshot() == lab.machine.snapshot()


def test_a_flood_of_dead_letters_goes_a_part_at_a_time() -> None:
    lab = Lab(QueueFeatures(name="q", dead_letter_exchange="dead", max_length=0))
    count = 2 * UNDER_WAY_MAX + 5
    records = [
        encode_record(encode_route("", "q"), Properties().encode(4), b"%04d" % number)
        for number in range(count)
    ]
    lab.submit(machine.enqueue(UID, records), lab.replies.append)
    lab.lead.serve(NODE, ("adjust", CONSUMER, 1, True))

    pending, lab.pending = lab.pending, []
    for command, done in pending:
        lab.entries.append(command)
        done(lab.machine.apply(len(lab.entries), lab.clock_ms, command, 0))
    lab.lead.applied(lab.machine.take_effects())
    lab.lead.flush()

    assert len(lab.letters) == UNDER_WAY_MAX
    lab.turn()
    assert [number for number, _ in lab.ended] == list(range(count))


def test_dead_letters_that_wait_are_dropped_with_the_exchange_that_a_policy_named() -> None:
    lab = Lab(QueueFeatures(name="q", dead_letter_exchange="dead"))
    lab.lead.serve(NODE, ("adjust", CONSUMER, 1, True))
    count = UNDER_WAY_MAX + 5
    record = encode_record(encode_route("", "q"), Properties().encode(1), b"1")
    lab.submit(machine.enqueue(UID, [record] * count), lab.replies.append)
    lab.turn()
    lab.lead.change(QueueFeatures(name="q", dead_letter_exchange="dead", max_length=0))
    lab.lead.flush()
    assert len(lab.letters) == UNDER_WAY_MAX

    lab.change(QueueFeatures(name="q", max_length=0))

    assert len(lab.ended) == UNDER_WAY_MAX
    state = lab.state(UID)
    assert state is not None
    assert state.live == 0


def test_a_letter_of_an_earlier_lead_says_nothing_to_the_next_one() -> None:
    lab = Lab(QueueFeatures(name="q", dead_letter_exchange="dead"))
    lab.publish(1, None, None, 0)
    [(sequence, _)] = lab.held
    lab.lead.serve(NODE, ("reject", CONSUMER, [sequence]))
    [letter] = lab.letters
    lab.letters.clear()
    lab.held.clear()
    lab.lead = lab.new_lead()
    lab.turn()
    assert [message for _, message in lab.held] == [1]

    letter.taken = 0
    lab.lead.buried(letter)
    lab.clock_ms += 10_000
    lab.turn()

    assert lab.ended == []
    assert [message for _, message in lab.held] == [1]
