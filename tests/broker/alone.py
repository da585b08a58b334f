"""A node without others, to a queue's lead: its log and what the lead asks of it."""

from __future__ import annotations

from leveret.broker.queues.machine import ShardMachine
from leveret.broker.queues.state import QueueState

NODE = 1


class Alone:
    """The log and the node (a `QueueLog`, a `QueueContext`) of one lead whose clock is set by hand.

    What a test does not expect of its lead fails.
    """

    node = NODE
    leader = NODE
    is_leader = True
    reign = 0

    def __init__(self, clock_ms: int) -> None:
        self.machine = ShardMachine()
        self.entries: list[bytes] = []
        self.clock_ms = clock_ms

    # Of the log

    def state(self, uid: int) -> QueueState | None:
        return self.machine.queues.get(uid)

    def read(self, entry: int) -> memoryview:
        return memoryview(self.entries[entry - 1])

    # Of the node

    def now_ms(self) -> int:
        return self.clock_ms

    def peers(self) -> set[int]:
        return set()

    def is_congested(self, node: int) -> bool:
        return False

    def send(self, node: int, uid: int, body: tuple[object, ...]) -> bool:
        raise AssertionError("there is one node")

    def delete_queue(self, uid: int, done: object) -> None:
        raise AssertionError("the queue does not end by itself")

    def park(self, vhost: str, letter: object) -> bool:
        return False

    def destination(self, source: int, uid: int) -> None:
        raise AssertionError("nobody moves messages")
