"""What a queue's actor needs of its node: a log, the other nodes, and a desk that outlives it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from leveret.actors import Ref
    from leveret.broker.messages import LocalConsumer, PublishRun, QueueMessage

    from .dead_letters import DeadLetter
    from .moving import Destination
    from .state import QueueState

UNREACHABLE: Final = "unreachable"
"""Reply of a log: the one node that could apply the command is gone."""


class QueueLog(Protocol):
    """Where a queue's commands go: a replicated shard, or the home node of a transient queue."""

    @property
    def leader(self) -> int | None:
        """The node that serves the queue, if known."""

    @property
    def is_leader(self) -> bool:
        """Whether that is this node, and it has applied all that came before."""

    @property
    def reign(self) -> int:
        """A number that grows whenever the leader, or what `is_leader` says, may have changed."""

    def submit(
        self, command: bytes, done: Callable[[object], None], *, is_urgent: bool = True
    ) -> None:
        """Have `command` applied once, in order of submission; `done` gets the reply.

        is_urgent: False if nobody waits for it, so that it may go with what comes later.
        """

    def state(self, uid: int) -> QueueState | None:
        """Return this node's copy of the queue's state; None before its first message."""

    def read(self, entry: int) -> memoryview:
        """Return the bytes of log entry `entry`, which holds a live message."""


class Alarm(Protocol):
    """A message that will be told at some time."""

    def cancel(self) -> None:
        """Have it not told."""


class QueueContext(Protocol):
    """What the actor needs of its node."""

    node: int

    def peers(self) -> Collection[int]:
        """Return the nodes whose links are there."""

    def send(self, node: int, uid: int, body: tuple[object, ...]) -> bool:
        """Tell the same queue's actor on another node; False when the link is down."""

    def is_congested(self, node: int) -> bool:
        """Whether so much is on its way to a node that deliveries should wait."""

    def delete_queue(self, uid: int, done: Callable[[object], None]) -> None:
        """Delete the queue, which is not used any more; then call `done`."""

    def exchange(self, vhost: str, name: str) -> Ref[PublishRun] | None:
        """Return an exchange, or None if there is no such exchange."""

    def park(self, vhost: str, letter: DeadLetter) -> bool:
        """Keep a dead letter that no queue takes; it comes home again. False: it is not wanted."""

    def destination(self, source: int, uid: int) -> Destination | None:
        """Return the queue to which messages of queue `source` may go; None if there is none."""

    def now_ms(self) -> int:
        """Return the time by the clock that stamps log entries where this node leads."""

    def after(self, delay_s: float, ref: Ref[QueueMessage], message: QueueMessage) -> Alarm:
        """Tell `message` to `ref` in `delay_s` seconds."""


class Desk:
    """What a queue's actor on one node must not lose in a crash: to whom it owes something."""

    def __init__(self) -> None:
        self.incoming: list[PublishRun] = []
        self.settling: list[int] = []
        self.consumers: dict[int, LocalConsumer] = {}
        self.requests = 0
        """The number of the last request to the leader."""
        self.was_open = False
        self.cycles = 0
        """Dead letters that were dropped here because they would go round."""
        self.cycles_told_ms = 0
        """When the log was told last."""
        self.unacked = 0
        """Messages that consumers hold, as of the last batch; 0 unless this node leads."""
