"""What is to be done in one run: which clients there are, and who sends where. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

Argument = str | int | bool

SPREADING_TYPES: Final = ("direct", "topic", "headers")
"""Exchange types by which each producer reaches one queue, unless told otherwise."""
QUEUE_HEADER: Final = "perf-queue"
"""The header by which a headers exchange tells the queues apart."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One run against one broker. The defaults are those of the command.

    urls: one host each, all of one cluster; the clients are spread over them.
    run: a number that tells the messages of this run from those of others.
    """

    urls: tuple[str, ...]
    run: int
    producers: int = 1
    consumers: int = 1
    processes: int = 1
    queues: tuple[str, ...]
    arguments: dict[str, Argument] = {}
    is_durable: bool = True
    """Whether queues are durable and messages persistent."""
    is_auto_delete: bool = False
    is_predeclared: bool = False
    """Queues, exchange and bindings are there, nothing is declared or deleted."""
    is_kept: bool = False
    """Queues and exchange stay at the end."""
    exchange: str = ""
    exchange_type: str = ""
    """Empty for an exchange that is not ours to declare."""
    routing_key: str | None = None
    binding_key: str | None = None
    size_bytes: int = 1024
    window: int = 100
    """Unconfirmed messages a producer; 0: without confirms."""
    prefetch: int = 200
    is_auto_ack: bool = False
    is_mandatory: bool = False
    rate_per_s: float = 0
    """Messages a second and producer; 0: as fast as it goes."""
    messages: int = 0
    """Messages a producer, or a consumer if there are no producers; 0: no end."""
    duration_s: float = 0
    """Seconds after the warm-up; 0: no end."""
    warm_up_s: float = 0
    interval_s: float = 1.0
    drain_s: float = 10.0
    """Seconds without any message after which nothing more is waited for."""
    seed: int = 1
    verifies: bool = False

    @property
    def reaches_all(self) -> bool:
        """Whether each message goes to all queues, not to one."""
        if not self.exchange:
            return False
        keys = (self.routing_key, self.binding_key)
        return self.exchange_type not in SPREADING_TYPES or keys != (None, None)

    @property
    def is_counted(self) -> bool:
        """Whether the run ends when all messages have been consumed, not at some time."""
        return self.messages > 0 or self.verifies

    def queues_of(self, producer: int) -> tuple[int, ...]:
        """The queues that a producer's messages come to."""
        if self.reaches_all:
            return tuple(range(len(self.queues)))
        return (producer % len(self.queues),)

    def consumed_queues_of(self, producer: int) -> int:
        """How many of the queues that a producer's messages come to have a consumer."""
        return sum(queue < self.consumers for queue in self.queues_of(producer))

    def queue_of(self, consumer: int) -> int:
        """The queue that a consumer takes from."""
        return consumer % len(self.queues)

    def key_of(self, producer: int) -> str:
        """The routing key of a producer's messages."""
        if self.routing_key is not None:
            return self.routing_key
        return self.queues[producer % len(self.queues)]

    def binding_of(self, queue: int) -> str:
        """The key by which a queue is bound to the exchange."""
        if self.binding_key is not None:
            return self.binding_key
        return self.queues[queue] if self.routing_key is None else self.routing_key

    def producers_in(self, process: int) -> range:
        """The producers that a process runs; producers and consumers take their turns together."""
        return range(process, self.producers, self.processes)

    def consumers_in(self, process: int) -> range:
        """The consumers that a process runs."""
        first = (process - self.producers) % self.processes
        return range(first, self.consumers, self.processes)

    def urls_of(self, client: int) -> tuple[str, ...]:
        """All hosts, beginning with the one that is this client's."""
        first = client % len(self.urls)
        return self.urls[first:] + self.urls[:first]
