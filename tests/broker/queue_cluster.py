"""Three nodes' actors of one queue, over a log and links that lose, lag and change leaders.

Everything is driven by one seeded random source, a step at a time and without an event loop: an
actor's `receive` is synchronous, and a queue's `flush` awaits nothing.  What is real: the actors,
the machine, the dispatcher.  What is fake, but behaves: the log (one order of entries for all,
exactly-once submission, leaders that do not know yet that they are deposed), the links (in order,
lost whole when they break, and the two ends notice at different times) and the channels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, cast

from leveret.actors import Ref
from leveret.broker.messages import (
    Adjust,
    Applied,
    Attach,
    Cancel,
    ConsumerCancelled,
    Count,
    Deliver,
    Detach,
    Get,
    GiveBack,
    LeaderChanged,
    LocalConsumer,
    PeerDown,
    PeerMessage,
    PeerUp,
    PublishRun,
    QueueMessage,
    QueueRequest,
    RoleChanged,
    Settle,
    StreamPosition,
    Written,
    unseen,
)
from leveret.broker.queues.features import PLAIN, QueueFeatures
from leveret.broker.queues.machine import Effect, ShardMachine
from leveret.broker.queues.queue import QueueActor
from leveret.broker.queues.seams import Alarm, Desk
from leveret.broker.queues.state import QueueState

UID = 7
NODES = (1, 2, 3)
NOOP = b""


class Mailbox:
    """A `Ref` whose messages wait until the test takes them."""

    def __init__(self) -> None:
        self.queue: deque[object] = deque()

    def tell(self, message: object) -> None:
        self.queue.append(message)


def run_now(coroutine: Coroutine[object, object, None]) -> None:
    """Run a coroutine that awaits nothing."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("it waits")


class Node:
    """A node: its view of the log, its links, its actor (a `QueueLog`, a `QueueContext`)."""

    def __init__(self, number: int, cluster: Cluster) -> None:
        self.node = number
        self.cluster = cluster
        self.machine = ShardMachine()
        self.applied = 0
        self.view: tuple[int, int | None] = (0, None)
        self.reign = 0
        self.outbox: deque[tuple[bytes, Callable[[object], None]]] = deque()
        self.waiting: dict[int, Callable[[object], None]] = {}
        self.up: set[int] = set()
        self.mailbox = Mailbox()
        self.desk = Desk()
        self.features = cluster.features
        self.effects: list[Effect] = []
        self.was_ready = False
        self.actor = self.new_actor()

    def new_actor(self) -> QueueActor:
        actor = QueueActor(UID, features=self.features, log=self, context=self, desk=self.desk)
        actor.ref = cast("Ref[QueueMessage]", self.mailbox)
        run_now(cast("Coroutine[object, object, None]", actor.start()))
        return actor

    # QueueLog

    @property
    def leader(self) -> int | None:
        return self.view[1]

    @property
    def is_leader(self) -> bool:
        term, leader = self.view
        return leader == self.node and self.applied >= self.cluster.began[term]

    def submit(
        self, command: bytes, done: Callable[[object], None], *, is_urgent: bool = True
    ) -> None:
        self.outbox.append((command, done))

    def state(self, uid: int) -> QueueState | None:
        return self.machine.queues.get(uid)

    def read(self, entry: int) -> memoryview:
        return memoryview(self.cluster.log[entry - 1][2])

    # QueueContext

    def is_congested(self, node: int) -> bool:
        return False

    def peers(self) -> set[int]:
        return self.up

    def send(self, node: int, uid: int, body: tuple[object, ...]) -> bool:
        if node not in self.up:
            return False
        link = self.cluster.links[self.node, node]
        if link is not None:
            link.append(body)
        return True

    def delete_queue(self, uid: int, done: Callable[[object], None]) -> None:
        raise AssertionError("the queue is not auto-delete")

    def park(self, vhost: str, letter: object) -> bool:
        return False

    def destination(self, source: int, uid: int) -> None:
        raise AssertionError("nobody moves messages")

    def exchange(self, vhost: str, name: str) -> None:
        raise AssertionError("the queue has no dead-letter exchange")

    def now_ms(self) -> int:
        return 0

    def after(self, delay_s: float, ref: object, message: object) -> Alarm:
        raise AssertionError("nothing in the queue waits for a time")

    # What happens to it

    def see(self, term: int, leader: int | None) -> None:
        """Learn who leads."""
        self.view = term, leader
        self._role_changed()

    def _role_changed(self) -> None:
        self.was_ready = self.is_leader
        self.reign += 1
        self.mailbox.tell(RoleChanged())

    def apply(self) -> None:
        """Apply the next entry, and tell like a group and its shard."""
        term, submitter, command, number = self.cluster.log[self.applied]
        if term > self.view[0]:
            self.see(term, None)
        self.applied += 1
        reply: object = None
        if command != NOOP:
            reply = self.machine.apply(self.applied, 0, command, 0)
        if self.is_leader != self.was_ready:
            self._role_changed()
        if submitter == self.node and command != NOOP:
            self.waiting.pop(number)(reply)
        effects = self.machine.take_effects()
        if effects and self.is_leader:
            self.mailbox.tell(Applied(effects))

    def step(self, count: int) -> None:
        """Let the actor handle a batch."""
        for _ in range(min(count, len(self.mailbox.queue))):
            self.actor.receive(cast("QueueMessage", self.mailbox.queue.popleft()))
        run_now(cast("Coroutine[object, object, None]", self.actor.flush()))

    def crash(self) -> None:
        """Restart the actor, as its supervisor does."""
        for request in list(self.cluster.requests):
            if request.node == self.node and not request.is_queued():
                request.fail()
        self.actor = self.new_actor()


class Asked:
    """A request that somebody waits for."""

    def __init__(self, node: int, request: QueueRequest[Any], mailbox: Mailbox) -> None:
        self.node = node
        self.request = request
        self._mailbox = mailbox

    def is_queued(self) -> bool:
        return any(message is self.request for message in self._mailbox.queue)

    def fail(self) -> None:
        self.request.fail(RuntimeError("crashed"))

    @property
    def is_answered(self) -> bool:
        return self.request._result is not None


class Client:
    """A channel with one consumer or one holder; keeps to `Channel`'s side of the protocol."""

    def __init__(
        self,
        node: Node,
        consumer_number: int,
        *,
        prefetch: int,
        no_ack: bool,
        stream: StreamPosition | None = None,
    ) -> None:
        self.node = node
        self.inbox = Mailbox()
        self.prefetch = prefetch
        self.consumer = LocalConsumer(
            number=consumer_number,
            connection=cast("Ref[object]", self.inbox),
            channel=1,
            tag="c" if prefetch >= 0 else None,
            no_ack=no_ack,
            exclusive=False,
            prefetch=max(prefetch, 0),
            priority=0,
            stream=stream,
        )
        self.held: dict[int, tuple[int, bytes]] = {}
        """By delivery tag: sequence number and body."""
        self.tag = 0
        self.is_gone = False
        self.is_paused = False
        self.last_first: dict[int, int] = {}
        self.got_since = 0

    def tell(self, message: object) -> None:
        self.node.mailbox.tell(message)


class Cluster:
    """All of it, and what is known of every message."""

    def __init__(self, seed: int, *, is_calm: bool, features: QueueFeatures = PLAIN) -> None:
        self.features = features
        self.random = Random(seed)
        self.is_calm = is_calm
        self.limit_hits = 0.05
        self.log: list[tuple[int, int, bytes, int]] = []
        """Term, submitting node, command, the submission's number."""
        self.term = 0
        self.leader: int | None = None
        self.began: dict[int, int] = {0: 1 << 60}
        """For each term the index of its leader's first entry."""
        self.submissions = 0
        self.links: dict[tuple[int, int], deque[tuple[object, ...]] | None] = {
            (a, b): None for a in NODES for b in NODES if a != b
        }
        self.requests: list[Asked] = []
        self.nodes = {number: Node(number, self) for number in NODES}
        self.clients: list[Client] = []
        self.consumer_numbers = 0
        self.published = 0
        self.confirmed: set[bytes] = set()
        self.open_runs: dict[int, PublishRun] = {}
        self.acked: set[bytes] = set()
        self.seen_fresh: set[bytes] = set()
        self.seen: set[bytes] = set()
        self.given_back_unseen: set[bytes] = set()
        self.publishers = {number: Mailbox() for number in NODES}
        for a, b in ((1, 2), (1, 3), (2, 3)):
            self.connect(a, b)

    # The network

    def connect(self, a: int, b: int) -> None:
        for one, other in ((a, b), (b, a)):
            node = self.nodes[one]
            if other in node.up:
                node.up.discard(other)
                node.mailbox.tell(PeerDown(other))
        for one, other in ((a, b), (b, a)):
            self.links[one, other] = deque()
            self.nodes[one].up.add(other)
            self.nodes[one].mailbox.tell(PeerUp(other))

    def break_link(self, a: int, b: int) -> None:
        self.links[a, b] = self.links[b, a] = None

    def notice(self, a: int, b: int) -> None:
        """Let `a` see that its link to `b` is broken."""
        node = self.nodes[a]
        if self.links[a, b] is None and b in node.up:
            node.up.discard(b)
            node.mailbox.tell(PeerDown(b))

    def carry(self, a: int, b: int, count: int) -> None:
        link = self.links[a, b]
        while link and count:
            count -= 1
            body = link.popleft()
            self.nodes[b].mailbox.tell(PeerMessage(a, _as_on_the_wire(body)))

    # The log

    def elect(self, number: int) -> None:
        self.term += 1
        self.leader = number
        self.log.append((self.term, number, NOOP, 0))
        self.began[self.term] = len(self.log)
        self.nodes[number].see(self.term, number)

    def commit(self, number: int) -> None:
        """Put the oldest submission of a node into the log."""
        node = self.nodes[number]
        if self.leader is None or not node.outbox:
            return
        command, done = node.outbox.popleft()
        self.submissions += 1
        node.waiting[self.submissions] = done
        self.log.append((self.term, number, command, self.submissions))

    # Clients

    def publish(self, number: int, count: int) -> None:
        run = PublishRun(
            connection=cast("Ref[object]", self.publishers[number]),
            channel=1,
            epoch=1,
            exchange="",
            routing_key="q",
            mandatory=False,
            first_confirm=1,
        )
        run.waiting = 1
        for _ in range(count):
            self.published += 1
            run.records.append(b"%d:%d" % (number, self.published))
        run.size_bytes = sum(map(len, run.records))
        self.open_runs[id(run)] = run
        self.nodes[number].mailbox.tell(run)

    def new_client(
        self,
        number: int,
        *,
        prefetch: int,
        no_ack: bool = False,
        stream: StreamPosition | None = None,
    ) -> Client:
        self.consumer_numbers += 1
        client = Client(
            self.nodes[number],
            self.consumer_numbers,
            prefetch=prefetch,
            no_ack=no_ack,
            stream=stream,
        )
        self.clients.append(client)
        if prefetch >= 0:
            self.ask(client.node, Attach(client.consumer))
        return client

    def ask(self, node: Node, request: QueueRequest[Any]) -> Asked:
        asked = Asked(node.node, request, node.mailbox)
        self.requests.append(asked)
        node.mailbox.tell(request)
        return asked

    def client_takes(self, client: Client) -> None:
        """Let the client's channel handle its oldest message."""
        message = client.inbox.queue.popleft()
        match message:
            case Deliver():
                self.delivered(client, message)
            case LeaderChanged():
                if not client.is_gone:
                    held = [sequence for sequence, _ in client.held.values()]
                    client.tell(Attach(client.consumer, held, again=True))
                    if client.is_paused:
                        client.tell(Adjust(client.consumer, paused=True))
            case ConsumerCancelled():
                raise AssertionError("nobody deleted the queue")

    def delivered(self, client: Client, message: Deliver) -> None:
        if client.is_gone:
            return
        size_bytes = sum(map(len, message.records))
        client.tell(
            Written(client.consumer, message.attachment, len(message.sequences), size_bytes)
        )
        if not client.consumer.no_ack and self.random.random() < self.limit_hits:
            # The channel is at its limit.
            self.given_back_unseen.update(map(bytes, message.records))
            for was_delivered, sequences in unseen(message):
                client.tell(GiveBack(client.consumer, sequences, delivered=was_delivered))
            client.tell(Adjust(client.consumer, paused=True))
            client.is_paused = True
            return
        for sequence, record, redelivered in zip(
            message.sequences, message.records, message.redelivered, strict=True
        ):
            client.got_since += 1
            self.saw(client, sequence, bytes(record), redelivered=redelivered)
        if client.prefetch > 0 and self.is_calm:
            # After a change of leader it may hold what another one has got, too.
            assert len(client.held) <= client.prefetch

    def saw(self, client: Client, sequence: int, body: bytes, *, redelivered: bool) -> None:
        if not redelivered:
            assert body not in self.seen_fresh, f"{body!r} came twice, unmarked"
            self.seen_fresh.add(body)
            publisher, number = map(int, body.split(b":"))
            if body not in self.given_back_unseen:
                assert client.last_first.get(publisher, 0) < number, "out of order"
                client.last_first[publisher] = number
        self.seen.add(body)
        if client.consumer.no_ack:
            self.acked.add(body)
        else:
            client.tag += 1
            client.held[client.tag] = sequence, body

    def take_got(self, client: Client, asked: Asked) -> None:
        """Let the client have what its basic.get brought."""
        result = asked.request._result
        assert result is not None
        if type(result).__name__ == "Error":
            return
        got = result.unwrap()
        if got is not None and not client.is_gone:
            self.saw(client, got.sequence, bytes(got.record), redelivered=got.redelivered)

    def settle(self, client: Client, tags: list[int]) -> None:
        taken = [client.held.pop(tag) for tag in tags]
        self.acked.update(body for _, body in taken)
        client.tell(Settle([sequence for sequence, _ in taken]))

    def requeue(self, client: Client, tags: list[int]) -> None:
        sequences = [client.held.pop(tag)[0] for tag in tags]
        client.tell(GiveBack(client.consumer, sequences, delivered=True))

    def unpause(self, client: Client) -> None:
        client.is_paused = False
        client.tell(Adjust(client.consumer, paused=False))

    def leave(self, client: Client) -> None:
        """Close the client's channel."""
        client.is_gone = True
        client.held.clear()
        client.tell(Detach(client.consumer))

    def cancel(self, client: Client) -> None:
        self.ask(client.node, Cancel(client.consumer))

    def count(self, number: int) -> None:
        self.ask(self.nodes[number], Count())

    def get(self, client: Client) -> Asked:
        return self.ask(client.node, Get(client.consumer))

    def take_confirms(self) -> None:
        for mailbox in self.publishers.values():
            while mailbox.queue:
                run = mailbox.queue.popleft()
                assert isinstance(run, PublishRun)
                del self.open_runs[id(run)]
                if not run.refused:
                    self.confirmed.update(run.records)

    # To an end

    def heal(self) -> None:
        """Mend all links, agree on a leader, and do all that is left to do."""
        for a, b in ((1, 2), (1, 3), (2, 3)):
            if self.links[a, b] is None:
                self.connect(a, b)
        if self.leader is None:
            self.elect(1)
        self.settle_down()
        for node in self.nodes.values():
            if node.view != (self.term, self.leader):
                node.see(self.term, self.leader)
        self.settle_down()

    def settle_down(self) -> None:
        """Run until nothing moves any more."""
        is_moving = True
        while is_moving:
            is_moving = False
            for node in self.nodes.values():
                while node.outbox:
                    self.commit(node.node)
                    is_moving = True
                while node.applied < len(self.log):
                    node.apply()
                    is_moving = True
                if node.mailbox.queue:
                    node.step(256)
                    is_moving = True
            for (a, b), link in self.links.items():
                if link:
                    self.carry(a, b, len(link))
                    is_moving = True
            for client in self.clients:
                while client.inbox.queue:
                    self.client_takes(client)
                    is_moving = True
        self.take_confirms()


def _as_on_the_wire(body: tuple[object, ...]) -> tuple[object, ...]:
    """Return what MessagePack makes of it: tuples, and bytes of their own."""
    return tuple(_copied(value) for value in body)


def _copied(value: object) -> object:
    match value:
        case memoryview():
            return bytes(value)
        case list() | tuple():
            return tuple(_copied(element) for element in value)
        case _:
            return value
