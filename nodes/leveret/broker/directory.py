"""The actors of this node by name: exchanges and queues come to be when somebody needs them.

It listens to the catalog (what is deleted ends), to the shards (who leads, what was applied) and
to the links (who is there), and tells the queues concerned.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from leveret.actors import ActorStopped
from leveret.catalog.commands import Changed, Created, DeleteQueue, Restored
from leveret.catalog.commands import Deleted as EntityDeleted
from leveret.catalog.model import Exchange, Permission, Policy, Queue, TopicPermission
from leveret.transport import NodeId

from .announcer import Announcer
from .arguments import decode_arguments
from .connections.tallies import Tallies
from .exchange import ExchangeActor
from .firehose import Firehose
from .messages import (
    Applied,
    Deleted,
    FeaturesChanged,
    PeerDown,
    PeerMessage,
    PeerUp,
    RoleChanged,
    Wake,
    tell,
)
from .news import News
from .parking import Parking
from .queues.features import features_of, is_too_full
from .queues.home import AwayLog, HomeLog
from .queues.moving import Destination
from .queues.queue import QueueActor
from .queues.seams import Desk
from .queues.shard import Shard
from .replies import ReplyDesk

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from leveret.actors import Actor, Ref, Supervisor, Timer, Timers
    from leveret.catalog import Catalog
    from leveret.catalog.commands import Event

    from .messages import LocalConsumer, PublishRun, QueueMessage
    from .policies.in_force import Policies
    from .queues.dead_letters import DeadLetter
    from .queues.features import QueueFeatures
    from .queues.machine import Effect, ShardMachine
    from .queues.seams import QueueLog
    from .queues.shard import ReplicatedGroup
    from .queues.state import QueueState
    from .routing.router import Routers


class Links(Protocol):
    """What the directory needs of the links to the other nodes."""

    @property
    def up(self) -> Collection[int]:
        """The nodes whose links are there."""

    def send(self, node: NodeId, channel: str, payload: object) -> bool:
        """Queue a message; False when the link is down."""

    def congested(self, node: NodeId) -> bool:
        """Whether so much is queued for a node that senders should hold back."""

    def on_message(self, channel: str, handler: Callable[[NodeId, object], None]) -> None:
        """Have `handler` called with what comes on `channel`."""

    def on_up(self, handler: Callable[[NodeId], None]) -> None:
        """Call when a link is there."""

    def on_down(self, handler: Callable[[NodeId], None]) -> None:
        """Call when a link broke."""


MAILBOX_MAX: Final = 1 << 22
"""Messages in an actor's mailbox, at which senders would crash: far above what the windows of
publishers (see `flow`) and consumers let come together."""

M = TypeVar("M")

CHANNEL = "queue"
"""The links' channel on which the actors of one queue on several nodes talk."""


class Directory:
    """Finds and makes the actors; see the module."""

    def __init__(
        self,
        *,
        node: int,
        boot: int,
        catalog: Catalog,
        routers: Routers,
        policies: Policies,
        links: Links,
        supervisor: Supervisor,
        timers: Timers,
        wall_clock_ms: Callable[[], int],
        parks_dead_letters: bool = False,
    ) -> None:
        self._timers = timers
        self._wall_clock_ms = wall_clock_ms
        self.node = node
        self.boot = boot
        self.catalog = catalog
        self._routers = routers
        self.policies = policies
        self._policies_seen = catalog.model.policy_changes
        self._definitions: dict[int, Mapping[str, object]] = {}
        """What policies say for the queues that have an actor here, as those know it."""
        self.replies = ReplyDesk(node=node, links=links)
        self.announcer = Announcer(catalog, self.exchange)
        self.firehose = Firehose(catalog, self.announcer, node=node)
        self.tallies = Tallies(catalog, links)
        self.parking = Parking(
            catalog,
            self.queue,
            node=node,
            boot=boot,
            is_on=parks_dead_letters,
            now_ms=wall_clock_ms,
        )
        self._links = links
        self._supervisor = supervisor
        self._shards: dict[int, Shard] = {}
        self._exchanges: dict[tuple[str, str], Ref[PublishRun]] = {}
        self._queues: dict[int, Ref[QueueMessage]] = {}
        self._logs: dict[int, HomeLog | AwayLog] = {}
        self._desks: dict[int, Desk] = {}
        self._consumer_number = 0
        self._early: dict[int, list[tuple[int, tuple[object, ...]]]] = {}
        """Messages for queues that this node's catalog does not know yet, by uid."""
        self.version = 0
        """Grows when an exchange went or a permission changed: what was checked for publishes
        must be checked again."""
        catalog.on_change(self._catalog_changed)
        # Behind the routers, which must know of a binding that is the first news it is to get.
        self.news = News(catalog, self.announcer, node=node, now_ms=wall_clock_ms)
        links.on_message(CHANNEL, self._peer_says)
        links.on_up(self._link_up)
        links.on_down(self._link_down)

    def add_shard(self, number: int, group: ReplicatedGroup, machine: ShardMachine) -> None:
        """Have the queues that the catalog places on shard `number` use `group`."""
        self._shards[number] = Shard(
            group, machine, applied=self._applied, role_changed=partial(self._role_changed, number)
        )

    def next_consumer_number(self) -> int:
        """Return a number for a consumer of this node that no other has."""
        self._consumer_number += 1
        return self._consumer_number

    def exchange(self, vhost: str, name: str) -> Ref[PublishRun] | None:
        """Return the actor of an exchange, or None if there is no such exchange."""
        ref = self._exchanges.get((vhost, name))
        if ref is None and self.catalog.model.exchange(vhost, name) is not None:
            reply = None if name else partial(self.replies.publish, vhost)
            ref = self._spawn(
                lambda: ExchangeActor(
                    lambda: self._routers.router(vhost, name),
                    self.queue,
                    reply=reply,
                    trace=self.firehose.published,
                ),
                f"exchange {name!r} in {vhost!r}",
            )
            if ref is not None:
                self._exchanges[vhost, name] = ref
        return ref

    def queue(self, uid: int) -> Ref[QueueMessage] | None:
        """Return the actor of a queue, or None if the catalog has none of that uid."""
        ref = self._queues.get(uid)
        if ref is None:
            queue = self.catalog.model.queue_by_uid(uid)
            if queue is None:
                return None
            log, desk = self._log(queue), Desk()
            self._definitions[uid] = self.policies.definition(queue)
            ref = self._spawn(
                lambda: QueueActor(
                    uid, features=self._features(queue), log=log, context=self, desk=desk
                ),
                f"queue {queue.name!r} in {queue.vhost!r}",
            )
            if ref is not None:
                self._queues[uid] = ref
                self._desks[uid] = desk
        return ref

    def consumer(self, uid: int, number: int) -> LocalConsumer | None:
        """Return a consumer of a queue on this node, by its number; None if it has gone."""
        desk = self._desks.get(uid)
        return None if desk is None else desk.consumers.get(number)

    def state(self, uid: int) -> QueueState | None:
        """Return this node's copy of a queue's state; None if it has none, or none yet."""
        queue = self.catalog.model.queue_by_uid(uid)
        if queue is None:
            return None
        log = self._shards[queue.shard] if queue.shard else self._logs.get(uid)
        return None if log is None else log.state(uid)

    def cycles(self, uid: int) -> int:
        """Return how many dead letters of a queue this node dropped since they would go round."""
        desk = self._desks.get(uid)
        return 0 if desk is None else desk.cycles

    def depth(self) -> tuple[int, int]:
        """Return how many messages are ready, and how many consumers hold.

        Those of the queues that this node leads.  Costs a step a queue.
        """
        messages = sum(shard.messages for shard in self._shards.values() if shard.is_leader)
        messages += sum(log.messages for log in self._logs.values() if isinstance(log, HomeLog))
        unacked = sum(desk.unacked for desk in self._desks.values())
        # What is being settled is in neither number, and the two are not of one moment.
        return max(messages - unacked, 0), unacked

    def queue_numbers(self) -> tuple[int, int]:
        """Return how many exchange and queue actors there are."""
        return len(self._exchanges), len(self._queues)

    # What queue actors ask of their node (`QueueContext`)

    def peers(self) -> Collection[int]:
        """Return the nodes whose links are there."""
        return self._links.up

    def send(self, node: int, uid: int, body: tuple[object, ...]) -> bool:
        """Tell the same queue's actor on another node."""
        return self._links.send(NodeId(node), CHANNEL, (uid, body))

    def is_congested(self, node: int) -> bool:
        """Whether so much is on its way to a node that deliveries should wait."""
        return self._links.congested(NodeId(node))

    def now_ms(self) -> int:
        """Return the wall clock's time."""
        return self._wall_clock_ms()

    def after(self, delay_s: float, ref: Ref[QueueMessage], message: QueueMessage) -> Timer:
        """Tell `message` to `ref` in `delay_s` seconds."""
        return self._timers.after(delay_s, ref, message)

    def park(self, vhost: str, letter: DeadLetter) -> bool:
        """Keep a dead letter that no queue takes; it comes home again. False: it is not wanted."""
        return self.parking.park(vhost, letter)

    def destination(self, source: int, uid: int) -> Destination | None:
        """Return the queue to which messages of queue `source` may go; None if there is none."""
        model = self.catalog.model
        queue, ref, origin = model.queue_by_uid(uid), self.queue(uid), model.queue_by_uid(source)
        if queue is None or ref is None or origin is None:
            return None
        is_in_same_log = queue.shard != 0 and queue.shard == origin.shard
        return Destination(uid, ref, self._features(queue), is_in_same_log)

    def delete_queue(self, uid: int, done: Callable[[object], None]) -> None:
        """Delete a queue that is not used any more."""
        queue = self.catalog.model.queue_by_uid(uid)
        if queue is not None:
            self.catalog.submit(DeleteQueue(queue.vhost, queue.name, uid), done)
        else:
            done(None)

    # News

    def _spawn(self, make: Callable[[], Actor[M]], name: str) -> Ref[M] | None:
        """Start an actor; None while the node is stopping, when nobody needs it any more."""
        try:
            return self._supervisor.spawn(make, name, limit=MAILBOX_MAX)
        except ActorStopped:
            return None

    def _log(self, queue: Queue) -> QueueLog:
        if queue.shard:
            return self._shards[queue.shard]
        if queue.home == self.node:
            log = HomeLog(
                queue.uid,
                self.node,
                applied=lambda effects: self._applied(queue.uid, effects),
                now_ms=self._wall_clock_ms,
            )
            self._logs[queue.uid] = log
            return log
        away = AwayLog(
            queue.home,
            lambda node, body: self.send(node, queue.uid, body),
            is_up=queue.home in self._links.up,
        )
        self._logs[queue.uid] = away
        return away

    def _applied(self, uid: int, effects: list[Effect]) -> None:
        # Here it is led: what came to it may be too much, or have its time, though nobody on this
        # node has had to do with the queue.
        ref = self.queue(uid)
        if ref is not None:
            tell(ref, Applied(effects))

    def _role_changed(self, number: int, shard: Shard) -> None:
        for queue in self.catalog.model.queues_in_shard(number):
            ref = self._queues.get(queue.uid)
            if ref is None and self._needs_its_lead(queue):
                ref = self.queue(queue.uid)
            if ref is not None:
                tell(ref, RoleChanged())
        shard.sweep(self.catalog.model)

    def _catalog_changed(self, event: Event) -> None:
        self._routers.apply(event)
        match event:
            case EntityDeleted(Exchange() as exchange):
                self.version += 1
                self._end_exchange(exchange.vhost, exchange.name)
            case EntityDeleted(Queue() as queue):
                self._end_queue(queue.uid)
                if queue.shard:
                    self._shards[queue.shard].drop(queue.uid)
            case Created(Queue() as queue):
                self._say_early(queue.uid)
                if self._needs_its_lead(queue):
                    self._wake(queue)
            case (
                Created(Permission() | TopicPermission())
                | Changed(Permission() | TopicPermission())
                | EntityDeleted(Permission() | TopicPermission())
            ):
                self.version += 1
            case Created(Policy()) | Changed(Policy()) | EntityDeleted(Policy()):
                self._follow_policies()
            case Restored():
                self.version += 1
                self._follow_policies()
                for vhost, name in list(self._exchanges):
                    if self.catalog.model.exchange(vhost, name) is None:
                        self._end_exchange(vhost, name)
                for uid in [u for u in self._queues if not self.catalog.model.queue_by_uid(u)]:
                    self._end_queue(uid)
                for uid in [u for u in self._early if u < self.catalog.model.uid_next]:
                    self._say_early(uid)
                for number, shard in self._shards.items():
                    # Of what is new to this node, a shard may have a lead here already.
                    self._role_changed(number, shard)

    def _follow_policies(self) -> None:
        """Tell the queues for which policies say something else than before what they do now."""
        model = self.catalog.model
        if self._policies_seen == model.policy_changes:
            return  # the news of another policy that changed with this one did it
        self._policies_seen = model.policy_changes
        for vhost in model.vhosts():
            for queue in model.queues(vhost.name):
                definition = self.policies.definition(queue)
                ref = self._queues.get(queue.uid)
                if ref is None:
                    if definition and self._needs_its_lead(queue):
                        self._wake(queue)
                elif definition != self._definitions[queue.uid]:
                    self._definitions[queue.uid] = definition
                    tell(ref, FeaturesChanged(self._features(queue)))

    def _wake(self, queue: Queue) -> None:
        """Have the queue's lead look at what it has to do."""
        ref = self.queue(queue.uid)
        if ref is not None:
            tell(ref, Wake())

    def _features(self, queue: Queue) -> QueueFeatures:
        return features_of(
            decode_arguments(queue.arguments),
            self.policies.definition(queue),
            vhost=queue.vhost,
            name=queue.name,
            auto_delete=queue.auto_delete,
        )

    def _needs_its_lead(self, queue: Queue) -> bool:
        """Say whether the queue has something to do here though nobody asks.

        It may have to expire, or to let go what has expired or is too much.
        """
        state = None
        if queue.shard:
            shard = self._shards[queue.shard]
            if not shard.is_leader:
                return False
            state = shard.state(queue.uid)
        elif (queue.home, queue.boot) != (self.node, self.boot):
            return False
        if state is not None and (state.has_traits or state.hold):
            return True
        features = self._features(queue)
        return features.ends_alone or (state is not None and is_too_full(features, state))

    def _end_exchange(self, vhost: str, name: str) -> None:
        ref = self._exchanges.pop((vhost, name), None)
        if ref is not None:
            ref.close()

    def _say_early(self, uid: int) -> None:
        for node, body in self._early.pop(uid, ()):
            self._peer_says(node, (uid, body))

    def _end_queue(self, uid: int) -> None:
        log = self._logs.pop(uid, None)
        if isinstance(log, AwayLog):
            log.dropped()
        ref = self._queues.pop(uid, None)
        self._desks.pop(uid, None)
        self._definitions.pop(uid, None)
        if ref is not None:
            tell(ref, Deleted())
            ref.close()

    def _peer_says(self, node: int, payload: object) -> None:
        match payload:
            case (int(uid), (str(), *_) as body):
                pass
            case _:
                return
        ref = self.queue(uid)
        if ref is None and uid >= self.catalog.model.uid_next:
            # The other node has heard of a new queue before this one.
            self._early.setdefault(uid, []).append((node, tuple(body)))
            return
        log = self._logs.get(uid)
        match body:
            case ("apply", int(number), bytes(command)):
                if isinstance(log, HomeLog):
                    log.submit(
                        command, lambda reply: _reply_applied(self, node, uid, number, reply)
                    )
                else:
                    _reply_applied(self, node, uid, number, "gone")
            case ("applied", int(number), reply):
                if isinstance(log, AwayLog):
                    log.answered(number, reply)
            case _:
                if ref is not None:
                    tell(ref, PeerMessage(node, tuple(body)))

    def _link_up(self, node: int) -> None:
        self._link_changed(node, is_up=True)

    def _link_down(self, node: int) -> None:
        # It will say again what counts, and may not be the same start of that node.
        for uid, said in list(self._early.items()):
            self._early[uid] = [(sender, body) for sender, body in said if sender != node]
        self._link_changed(node, is_up=False)

    def _link_changed(self, node: int, *, is_up: bool) -> None:
        for uid, ref in list(self._queues.items()):
            log = self._logs.get(uid)
            if isinstance(log, AwayLog) and log.home == node:
                log.link_changed(is_up=is_up)
            tell(ref, PeerUp(node) if is_up else PeerDown(node))


def _reply_applied(directory: Directory, node: int, uid: int, number: int, reply: object) -> None:
    directory.send(node, uid, ("applied", number, reply))
