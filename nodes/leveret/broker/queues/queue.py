"""The actor of one queue: its face on this node, and its heart on the node that leads it.

Every node that uses a queue has an actor for it.  All of them gather what is published here and
what is settled here into one command a batch.  What needs the queue's order (consumers, get,
purge, counts) is served by the actor on the leading node; the others pass it on over the link,
and hand what comes back to the connections of their own node.

After a change of leader, a break of the link to it, or a crash of an actor, nothing is assumed:
connections attach their consumers again with what their channels still hold, and requests without
an answer are sent again.  Each attaching has a number of its own (its request's), which deliveries
and news of what was written carry, so that those of an earlier one count nowhere.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from leveret.actors import Actor
from leveret.broker.messages import (
    ALL,
    Adjust,
    Applied,
    AskAgain,
    Attach,
    Cancel,
    ConsumerCancelled,
    ConsumerTimedOut,
    Count,
    Credit,
    Deleted,
    Deliver,
    Detach,
    ExclusiveUse,
    FeaturesChanged,
    Get,
    GiveBack,
    Got,
    LeadAction,
    LeaderChanged,
    NotLeading,
    PeerDown,
    PeerMessage,
    PeerUp,
    PublishRun,
    Purge,
    QueueCounts,
    QueueGone,
    QueueMessage,
    Reject,
    RoleChanged,
    Settle,
    Wake,
    Written,
    tell,
)
from leveret.broker.numbering import origins_of

from . import machine
from .dead_letters import DeadLetter
from .features import PLAIN
from .lead import Lead, bury_refused
from .message_life import read_lives
from .moving import resume
from .ranges import to_ranges
from .seams import UNREACHABLE
from .stream_lead import StreamLead

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leveret.broker.messages import LocalConsumer

    from .features import QueueFeatures
    from .seams import Desk, QueueContext, QueueLog

_LeaderRequest = Attach | Cancel | Get | Count | Purge

log = logging.getLogger(__name__)

CYCLES_TOLD_MS: Final = 60_000
"""Dead letters that go round are told in the log so often, for each queue."""

COMMAND_BYTES_MAX: Final = 1 << 20
"""Messages of one batch beyond this go into a further command, so that no entry grows huge."""


class QueueActor(Actor[QueueMessage]):
    """See the module."""

    def __init__(
        self,
        uid: int,
        *,
        features: QueueFeatures = PLAIN,
        log: QueueLog,
        context: QueueContext,
        desk: Desk,
    ) -> None:
        """Serve queue `uid`; `desk` is the one of the instance before, if that crashed."""
        self.uid = uid
        self._features = features
        self._log = log
        self._context = context
        self._desk = desk
        self._unsettled: list[int] = []
        """What the home node was not there to be told of; see `_submit_settled`."""
        self._consumers = desk.consumers
        self._attachments: dict[int, int] = {}
        """Consumers that are attached, or about to be: by which request."""
        self._pending: dict[int, _LeaderRequest] = {}
        """Requests that the leader has not answered, by their number."""
        self._asked: dict[int, int] = {}
        """Those among them that somebody waits for and that are about a consumer, by consumer.
        A channel asks one thing at a time, so there is one."""
        self._lead: Lead | StreamLead | None = None
        self._early: list[tuple[int, Sequence[object]]] = []
        """What was asked of this leader before it was ready."""
        self._is_replacing = False
        """A hold in the place of an earlier leader's is on its way through the log."""
        self._own_hold = 0
        """The one that this instance put there."""
        self._gone = False

    async def start(self) -> None:
        """Take the lead if this node has it; there may be nothing yet to tell it otherwise."""
        self._take_role()
        if self._desk.was_open:
            self._recover()
        self._desk.was_open = True

    def receive(self, message: QueueMessage) -> None:
        """Handle one message; effects are performed by `flush`."""
        match message:
            case DeadLetter() if message.is_home_at(self.uid):
                self._buried(message)
            case PublishRun():
                if self._gone:
                    message.gone()
                else:
                    self._desk.incoming.append(message)
            case Settle():
                self._desk.settling += message.sequences
                # The log will say so too, but later than a detach of the consumer may come.
                self._to_leader("release", message.sequences)
            case Credit():
                self._to_leader("credit", message.consumer.number, list(message.sequences))
            case Reject():
                self._reject(message)
            case Applied():
                if self._lead is not None:
                    self._lead.applied(message.effects)
            case FeaturesChanged():
                self._features = message.features
                if self._lead is not None:
                    self._lead.change(message.features)
            case Wake():
                if self._lead is not None:
                    self._lead.woken()
            case AskAgain():
                if self._lead is not None:
                    self._lead.ask_again()
            case Written():
                self._to_leader(
                    "written",
                    message.consumer.number,
                    message.attachment,
                    message.count,
                    message.size_bytes,
                )
            case GiveBack():
                self._to_leader(
                    "back", message.consumer.number, list(message.sequences), message.delivered
                )
            case Adjust():
                self._to_leader(
                    "adjust", message.consumer.number, message.consumer.prefetch, message.paused
                )
            case Attach() | Get() | Cancel() | Count() | Purge():
                self._request(message)
            case LeadAction():
                self._act(message)
            case Detach():
                self._forget(message.consumer.number)
                self._to_leader("detach", message.consumer.number)
            case PeerMessage():
                self._peer_says(message.node, message.body)
            case RoleChanged():
                self._take_role()
                self._attach_again()
            case PeerUp():
                if message.node == self._log.leader:
                    self._desk.settling += self._unsettled
                    self._unsettled.clear()
                    self._attach_again()
            case PeerDown():
                self._forget_node(message.node)
            case Deleted():
                self._end()

    async def flush(self) -> None:
        """Submit what the batch brought, and hand out what is ready."""
        if self._desk.incoming:
            self._submit_incoming()
        if self._desk.settling:
            self._submit_settled()
        lead = self._leading()
        if lead is not None:
            lead.flush()
        self._desk.unacked = 0 if lead is None else lead.unacked

    def _buried(self, letter: DeadLetter) -> None:
        if letter.cycles:
            self._note_cycles(letter)
        if letter.is_unroutable and self._context.park(self._features.vhost, letter):
            return
        if letter.sequence is None:
            return
        if not letter.refused:
            self._desk.settling.append(letter.sequence)
        if isinstance(self._lead, Lead):
            self._lead.buried(letter)

    def _note_cycles(self, letter: DeadLetter) -> None:
        """Count what was dropped because it would go round, and say so now and then."""
        desk, now_ms = self._desk, self._context.now_ms()
        desk.cycles += letter.cycles
        if now_ms >= desk.cycles_told_ms + CYCLES_TOLD_MS:
            desk.cycles_told_ms = now_ms
            log.warning(
                "dead letters go round in a circle: they are dropped",
                extra={
                    "queue": self._features.name,
                    "vhost": self._features.vhost,
                    "exchange": letter.exchange,
                    "dropped": desk.cycles,
                },
            )

    def _reject(self, message: Reject) -> None:
        if self._features.dead_letter_exchange is None:
            self._desk.settling += message.sequences
            self._to_leader("release", message.sequences)
        else:
            # Should it not arrive, or the leader die, they are delivered again.
            self._to_leader("reject", message.consumer.number, list(message.sequences))

    # Into the log

    def _submit_incoming(self) -> None:
        runs: list[PublishRun] = []
        size = 0
        incoming, self._desk.incoming = self._desk.incoming, []
        for run in incoming:
            if run.is_transfer:
                if runs:
                    self._submit_runs(runs)
                    runs, size = [], 0
                self._submit_runs([run])
                continue
            runs.append(run)
            size += run.size_bytes
            if size >= COMMAND_BYTES_MAX:
                self._submit_runs(runs)
                runs, size = [], 0
        if runs:
            self._submit_runs(runs)

    def _submit_runs(self, runs: list[PublishRun]) -> None:
        records: list[bytes] = []
        is_numbered = False
        is_stream = self._features.stream is not None
        is_transfer = runs[0].is_transfer
        limit = self._features.limit if is_transfer else self._features.publish_limit
        has_lives = self._features.looks_into_messages or limit is not None
        for run in runs:
            records += run.records
            is_numbered = is_numbered or run.numbering is not None
            has_lives = has_lives or run.has_lives
        if is_stream:
            command = machine.enqueue_stream(self.uid, records, origins_of(runs))
        elif has_lives:
            command = machine.enqueue_lives(
                self.uid,
                records,
                origins_of(runs),
                read_lives(records, self._features),
                limit,
            )
        elif is_numbered:
            command = machine.enqueue_numbered(self.uid, records, origins_of(runs))
        else:
            command = machine.enqueue(self.uid, records)
        self._log.submit(command, partial(self._stored, runs))

    def _stored(self, runs: list[PublishRun], reply: object) -> None:
        if self._features.overflow == "reject-publish-dlx" and not runs[0].is_transfer:
            match reply:
                case ("full", int(taken)):
                    refused = [record for run in runs for record in run.records][taken:]
                    bury_refused(self.uid, refused, self._features, self._context, self.ref)
        _answer(runs, reply)

    def _submit_settled(self) -> None:
        sequences, self._desk.settling = self._desk.settling, []

        def done(reply: object) -> None:
            if reply == UNREACHABLE:
                self._unsettled.extend(sequences)

        # No client hears of it; should it be lost with this node, the messages come again.
        self._log.submit(machine.settle(self.uid, to_ranges(sequences)), done, is_urgent=False)

    # The front: what this node's connections ask

    def _request(self, request: _LeaderRequest) -> None:
        if self._gone:
            request.fail(QueueGone())
            return
        if isinstance(request, Count | Purge):
            self._send_request(request)
            return
        number = request.consumer.number
        if isinstance(request, Attach) and request.again:
            asked = self._pending.pop(self._asked.get(number, 0), None)
            if isinstance(asked, Attach):
                asked.goes_on_as(request)
                request, asked = asked, None
            self._send_request(request)
            if asked is not None:  # behind it, under a new number: an old answer is void
                self._send_request(asked)
            return
        self._send_request(request)

    def _send_request(self, request: _LeaderRequest) -> None:
        self._desk.requests = number = self._desk.requests + 1
        self._pending[number] = request
        if not isinstance(request, Count | Purge):
            consumer = request.consumer
            if isinstance(request, Attach):
                self._attachments[consumer.number] = number
            if not (isinstance(request, Attach) and request.again):
                self._asked[consumer.number] = number
            self._consumers[consumer.number] = consumer
        match request:
            case Attach() if request.consumer.stream is not None:
                consumer = request.consumer
                self._to_leader(
                    "follow",
                    number,
                    consumer.number,
                    consumer.takes_turns,
                    consumer.prefetch,
                    request.start,
                    tuple(request.held),
                )
            case Attach():
                consumer = request.consumer
                self._to_leader(
                    "attach",
                    number,
                    consumer.number,
                    consumer.takes_turns,
                    consumer.prefetch,
                    consumer.no_ack,
                    consumer.exclusive,
                    consumer.priority,
                    consumer.activated,
                    consumer.timeout_ms,
                    consumer.default_timeout_ms,
                    tuple(request.held),
                )
            case Cancel():
                request.consumer.takes_turns = False
                self._to_leader("cancel", number, request.consumer.number)
            case Get():
                self._to_leader("get", number, request.consumer.number, request.consumer.no_ack)
            case Count():
                self._to_leader("count", number)
            case Purge():
                self._to_leader("purge", number)

    def _to_leader(self, *body: object) -> None:
        """Have the leader do `body`; without one, what matters is sent again when there is."""
        leader = self._log.leader
        if leader == self._context.node:
            self._serve(leader, body)
        elif leader is not None:
            self._context.send(leader, self.uid, body)

    def _attach_again(self) -> None:
        """Tell a new leader (or one that lost sight of us) all that it must know.

        What is about a consumer follows when its channel has attached it again.
        """
        self._attachments.clear()
        waiting, self._pending = self._pending, {}
        for number, request in waiting.items():
            if isinstance(request, Count | Purge):
                if not request.is_withdrawn:
                    self._pending[number] = request
            elif self._asked.get(request.consumer.number) == number:
                self._pending[number] = request
        if self._log.leader is None:
            return
        # Whom it still knows of those that are gone since, it must not wait for.
        self._to_leader("known", list(self._consumers))
        for consumer in self._consumers.values():
            tell(consumer.connection, LeaderChanged(self.uid, consumer))
        for number, request in list(self._pending.items()):
            if isinstance(request, Count | Purge):
                del self._pending[number]
                self._send_request(request)

    def _forget(self, number: int) -> None:
        """Forget a consumer with what was asked for it."""
        self._consumers.pop(number, None)
        self._attachments.pop(number, None)
        asked = self._pending.pop(self._asked.pop(number, 0), None)
        if asked is not None:
            asked.fail(QueueGone())

    def _recover(self) -> None:
        """Go on after a crash: whoever is owed something is answered, or asked again."""
        incoming, self._desk.incoming = self._desk.incoming, []
        for run in incoming:
            # Whether it is in the log is not known, so it is not confirmed.
            run.answer(taken=0)
        if self._lead is not None:
            for node in self._context.peers():
                self._context.send(node, self.uid, ("again",))
        self._attach_again()

    def _answered(self, number: int, kind: str, values: Sequence[object]) -> None:
        if kind == "active":
            self._activated(number, values)
            return
        if kind == "timeout":
            self._timed_out(number, values)
            return
        request = self._pending.pop(number, None)
        if request is None:
            return  # answered by an earlier leader already, or not wanted any more
        if (
            not isinstance(request, Count | Purge)
            and self._asked.get(request.consumer.number) == number
        ):
            del self._asked[request.consumer.number]
        match request, kind, values:
            case ((Attach() | Cancel()), "ok", _):
                request.reply(None)
            case Attach(), "following", (int(position),):
                stream = request.consumer.stream
                assert stream is not None
                stream.began(position)
                request.reply(None)
            case Attach(), "exclusive", _:
                self._forget(request.consumer.number)
                request.fail(ExclusiveUse())
                if request.again:
                    # Another one was quicker with the new leader.
                    tell(
                        request.consumer.connection,
                        ConsumerCancelled(self.uid, request.consumer),
                    )
            case Get(), "empty", _:
                request.reply(None)
            case Get(), "got", (sequence, redelivered, record, ready):
                request.reply(
                    Got(sequence, record, redelivered=redelivered, ready=ready)  # type: ignore[arg-type]
                )
            case Count(), "count", (ready, unacked, consumers):
                request.reply(QueueCounts(ready, unacked, consumers))  # type: ignore[arg-type]
            case Purge(), "purged", (count,):
                request.reply(count)  # type: ignore[arg-type]

    def _activated(self, attachment: int, values: Sequence[object]) -> None:
        """Note that a consumer became the single active one, or is not any more."""
        consumer = self._attached(attachment)
        if consumer is not None:
            (consumer.activated,) = values  # type: ignore[assignment]

    def _timed_out(self, attachment: int, values: Sequence[object]) -> None:
        """Tell a consumer that it held messages for too long, and gets no others."""
        consumer = self._attached(attachment)
        if consumer is not None:
            consumer.takes_turns = False
            (sequences,) = values
            late = ConsumerTimedOut(self.uid, consumer, sequences)  # type: ignore[arg-type]
            tell(consumer.connection, late)

    def _attached(self, attachment: int) -> LocalConsumer | None:
        """Return the consumer with this attachment, if that is its last one."""
        for number, attached in self._attachments.items():
            if attached == attachment:
                return self._consumers[number]
        return None

    def _hand_on(
        self,
        number: int,
        attachment: int,
        sequences: Sequence[int],
        redelivered: Sequence[bool],
        records: Sequence[bytes | memoryview],
    ) -> None:
        # By an earlier attachment it is void: the leader learns from the next one what this
        # consumer holds, and hands the rest out again.
        if self._attachments.get(number) == attachment:
            consumer = self._consumers[number]
            message = Deliver(self.uid, consumer, attachment, sequences, redelivered, records)
            if not tell(consumer.connection, message):
                # It has ended in a crash, without a word.
                self._forget(number)
                self._to_leader("detach", number)

    def _peer_says(self, node: int, body: tuple[object, ...]) -> None:
        match body:
            case ("deliver", int(number), int(attachment), sequences, redelivered, records):
                self._hand_on(
                    number,
                    attachment,
                    sequences,  # type: ignore[arg-type]
                    redelivered,  # type: ignore[arg-type]
                    records,  # type: ignore[arg-type]
                )
            case ("again",):
                if node == self._log.leader:
                    self._attach_again()
            case ("reply", int(number), str(kind), *values):
                self._answered(number, kind, values)
            case _:
                self._serve(node, body)

    def _end(self) -> None:
        """The queue is deleted: nobody waits for it any more."""
        self._gone = True
        self._lead = None
        for request in self._pending.values():
            if isinstance(request, Cancel):
                request.reply(None)
            else:
                request.fail(QueueGone())
        self._pending.clear()
        self._asked.clear()
        self._attachments.clear()
        for consumer in self._consumers.values():
            tell(consumer.connection, ConsumerCancelled(self.uid, consumer))
        self._consumers.clear()
        incoming, self._desk.incoming = self._desk.incoming, []
        _answer(incoming, machine.GONE)

    # The lead

    def _leading(self) -> Lead | StreamLead | None:
        """Return the lead if this node has it, by the log's latest word.

        The state may be ahead of the mailbox: with a mark that was applied under the next leader,
        who does not know of it yet, an earlier one would deliver what that one does, too.
        """
        return self._lead if self._lead is not None and self._lead.is_current else None

    def _take_role(self) -> None:
        if self._lead is not None and self._lead.is_current:
            # The news is older than what the log said when this lead was taken: consumers of
            # other nodes that attached since must not be forgotten.
            return
        self._lead = None
        if self._log.leader != self._context.node:
            self._early = []
        if self._log.is_leader and not self._gone:
            state = self._log.state(self.uid)
            if state is not None and state.hold not in {0, self._own_hold}:
                self._replace_hold()
                return
            self._lead = self._new_lead()
            if isinstance(self._lead, Lead) and self._lead.state.hold:
                resume(self._lead)
            early, self._early = self._early, []
            for node, body in early:
                self._serve(node, body)

    def _new_lead(self) -> Lead | StreamLead:
        if self._features.stream is not None:
            return StreamLead(
                self.uid,
                self._features.stream,
                log=self._log,
                context=self._context,
                ref=self.ref,
                hand_on=self._hand_on,
                answer=self._answered,
            )
        return Lead(
            self.uid,
            self._features,
            log=self._log,
            context=self._context,
            ref=self.ref,
            hand_on=self._hand_on,
            answer=self._answered,
        )

    def _replace_hold(self) -> None:
        """Take the place of an earlier leader, or instance, that was doing something; then lead.

        What it has under way comes to the log behind this, and is void: so nothing is delivered
        here that it takes away.
        """

        def held(reply: object) -> None:
            self._is_replacing = False
            match reply:
                case ("held", int(number), _):
                    self._own_hold = number
            tell(self.ref, RoleChanged())

        if not self._is_replacing:
            self._is_replacing = True
            self._log.submit(machine.hold(self.uid, None), held)

    def _act(self, action: LeadAction[Any]) -> None:
        lead = self._leading()
        if self._gone:
            action.fail(QueueGone())
        elif lead is None:
            action.fail(NotLeading())
        elif isinstance(lead, StreamLead):
            action.carry_out_on_stream(lead)
        else:
            action.carry_out(lead)

    def _serve(self, node: int, body: Sequence[object]) -> None:
        """Do what the actor on `node` asks of the leader.

        If this node does not lead (any more), the other one learns so from the log, and asks
        the new leader.  If it leads but has not applied yet what came before, that waits.
        """
        lead = self._leading()
        if lead is not None:
            lead.serve(node, body)
        elif self._log.leader == self._context.node and not self._gone:
            self._early.append((node, body))

    def _forget_node(self, node: int) -> None:
        self._early = [(asker, body) for asker, body in self._early if asker != node]
        if self._lead is not None:
            self._lead.forget_node(node)


def _answer(runs: list[PublishRun], reply: object) -> None:
    match reply:
        case ("full", int(taken)):
            for run in runs:
                run.answer(taken=max(taken, 0))
                taken -= len(run.records)
        case machine.GONE:
            for run in runs:
                run.gone()
        case _:
            for run in runs:
                run.answer(taken=0 if reply == UNREACHABLE else ALL)
