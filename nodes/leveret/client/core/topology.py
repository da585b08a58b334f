"""What was declared through a connection, to be declared again on the next transport.

Exchanges and queues first, then bindings; an entry leaves when it is deleted through the same
connection. A queue that the broker named gets a new name each time; `resolve` maps the name that
the program knows to the one of today.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, TypeAlias

from leveret.amqp import spec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from leveret.amqp import Method

_Key: TypeAlias = "tuple[str, ...]"


class Topology:
    """The declared exchanges, queues and bindings of one connection, in order."""

    def __init__(self) -> None:
        self._exchanges: dict[str, spec.ExchangeDeclare] = {}
        self._queues: dict[str, spec.QueueDeclare] = {}
        self._bindings: dict[_Key, spec.QueueBind | spec.ExchangeBind] = {}
        self._names: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._exchanges) + len(self._queues) + len(self._bindings)

    def resolve(self, queue: str) -> str:
        """The present name of a queue that the program knows as `queue`."""
        return self._names.get(queue, queue)

    def known(self, queue: str) -> spec.QueueDeclare | None:
        """How `queue`, under the name that the program knows, was declared here."""
        return self._queues.get(queue)

    def note(self, asked: Method, answer: Method) -> None:
        """Remember, or forget, what the broker has answered to `asked`."""
        match asked:
            case spec.ExchangeDeclare(passive=False):
                self._exchanges[asked.exchange] = asked
            case spec.QueueDeclare(passive=False) if isinstance(answer, spec.QueueDeclareOk):
                self._queues[answer.queue] = asked
            case spec.QueueBind() | spec.ExchangeBind():
                self._bindings[_key(asked)] = asked
            case spec.QueueUnbind() | spec.ExchangeUnbind():
                self._bindings.pop(_key(asked), None)
            case spec.QueueDelete():
                self._forget_queue(asked.queue)
            case spec.ExchangeDelete():
                self._forget_exchange(asked.exchange)
            case _:
                pass

    def _forget_queue(self, queue: str) -> None:
        # It may be deleted under the name of today, too.
        name = next((old for old, new in self._names.items() if new == queue), queue)
        self._queues.pop(name, None)
        self._names.pop(name, None)
        self._drop_bindings("queue", name)

    def _forget_exchange(self, exchange: str) -> None:
        self._exchanges.pop(exchange, None)
        self._drop_bindings("exchange", exchange)
        for key in [key for key in self._bindings if key[2] == exchange]:
            del self._bindings[key]

    def _drop_bindings(self, kind: str, name: str) -> None:
        for key in [key for key in self._bindings if key[:2] == (kind, name)]:
            del self._bindings[key]

    def forget(self, declared: Method) -> None:
        """Forget what could not be declared again."""
        match declared:
            case spec.ExchangeDeclare():
                self._forget_exchange(declared.exchange)
            case spec.QueueDeclare():
                for name in [n for n, method in self._queues.items() if method is declared]:
                    self._forget_queue(name)
            case spec.QueueBind() | spec.ExchangeBind():
                self._bindings.pop(_key(declared), None)
            case _:
                pass

    def forget_exclusive(self) -> None:
        """Forget the queues that belong to one connection, which is not ours any more."""
        for name in [name for name, method in self._queues.items() if method.exclusive]:
            self._forget_queue(name)

    def entities(self) -> Iterator[tuple[str, Method]]:
        """The declares to send first, each with the name that the program knows."""
        yield from list(self._exchanges.items())
        yield from list(self._queues.items())

    def renamed(self, queue: str, name: str) -> None:
        """Note that `queue`, which the broker named, is called `name` now."""
        if queue != name:
            self._names[queue] = name

    def bindings(self) -> Iterator[Method]:
        """The binds to send when the declares are answered."""
        yield from list(self._bindings.values())

    def on_wire(self, method: Method) -> Method:
        """`method` with the present name of the queue that it speaks of."""
        if self._names:
            queue = getattr(method, "queue", None)
            if queue in self._names and not isinstance(method, spec.QueueDeclare):
                method = copy.copy(method)
                method.queue = self._names[queue]  # type: ignore[attr-defined]
        return method

    def queue_with_bindings(self, queue: str) -> list[Method]:
        """What declares one queue again, under the name that the program knows."""
        declare = self._queues.get(queue)
        if declare is None:
            return []
        binds = [m for k, m in self._bindings.items() if k[:2] == ("queue", queue)]
        return [declare, *binds]


def _key(
    method: spec.QueueBind | spec.ExchangeBind | spec.QueueUnbind | spec.ExchangeUnbind,
) -> _Key:
    """What makes two bindings the same one."""
    if isinstance(method, spec.QueueBind | spec.QueueUnbind):
        ends = ("queue", method.queue, method.exchange)
    else:
        ends = ("exchange", method.destination, method.source)
    return (*ends, method.routing_key, repr(sorted(method.arguments.items())))
