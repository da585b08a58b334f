"""From an exchange and a routing key to queues, over exchange-to-exchange bindings. Pure.

A `Router` stands for one exchange, compiles its bindings when it first routes, and follows the
catalog's events afterwards. It remembers answers, because compiled routing of a key costs
microseconds per word and binding while a dict costs one lookup.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal

from leveret.broker.routing import exchange_types
from leveret.broker.routing.direct import DirectMatcher
from leveret.broker.routing.fanout import FanoutMatcher
from leveret.broker.routing.headers import HeadersMatcher
from leveret.broker.routing.matcher import READS_EACH_MESSAGE, Matcher
from leveret.broker.routing.spreading import (
    ConsistentHashMatcher,
    ModulusHashMatcher,
    RandomMatcher,
)
from leveret.broker.routing.topic import TopicMatcher
from leveret.catalog.commands import Changed, Created, Deleted, Event, Restored
from leveret.catalog.model import Binding, Exchange, Model, Policy, Queue

Headers = Mapping[str, object]

MEMO_WEIGHT_MAX: Final = 16384
"""The most that one exchange remembers, in keys plus queues of their answers: about 2 MiB with
short keys. At the limit it forgets everything and begins anew."""

_NO_HEADERS: Headers = {}

# What an answer depends on: on nothing (fanout), on the key, or on things that the events of
# bindings do not tell (headers, alternate exchanges), which must not be remembered.
_Dependence = Literal["nothing", "key", "more"]


class Router:
    """Routes what is published to one exchange; valid until the exchange is deleted."""

    def __init__(self, table: Routers, exchange: Exchange) -> None:
        self.exchange = exchange
        self.matcher = table.compile(exchange)
        self._table = table
        self._one_by_one: bool | None = None
        self._constant: tuple[Queue, ...] | None = None
        self._memo: dict[str, tuple[Queue, ...]] = {}
        self._memo_weight = 0

    def route(
        self,
        routing_key: str,
        headers: Callable[[], Headers],
        properties: Callable[[], Headers] = dict,
    ) -> tuple[Queue, ...]:
        """Return the queues that a message goes to, each once; empty if it is unroutable.

        headers: gives the message's decoded headers; called once or not at all.
        properties: gives those of its properties that exchanges may route by, likewise.
        """
        if self._constant is not None:
            return self._constant
        queues = self._memo.get(routing_key)
        if queues is not None:
            return queues
        queues, dependence = self._table.walk(self, routing_key, headers, properties)
        if dependence == "nothing":
            self._constant = queues
        elif dependence == "key":
            self._remember(routing_key, queues)
        return queues

    @property
    def routes_one_by_one(self) -> bool:
        """Whether two messages with the same key may go to different queues."""
        if self._one_by_one is None:
            self._one_by_one = self._table.reaches_one_by_one(self)
        return self._one_by_one

    def recompile(self) -> None:
        """Take the bindings from the model anew."""
        self.matcher = self._table.compile(self.exchange)
        self.forget()

    def forget(self) -> None:
        """Forget the remembered answers: a binding on the way of some message has changed."""
        self._one_by_one = None
        self._constant = None
        self._memo.clear()
        self._memo_weight = 0

    def _remember(self, routing_key: str, queues: tuple[Queue, ...]) -> None:
        weight = 1 + len(queues)
        if self._memo_weight + weight > MEMO_WEIGHT_MAX:
            self.forget()
        self._memo[routing_key] = queues
        self._memo_weight += weight


class Routers:
    """The routers of all exchanges of the node.

    model: the applied catalog; its events go to `apply`, in order.
    decode: gives the view of the encoded arguments of a binding.
    alternate: gives the name of an exchange's alternate exchange, or None; it changes only with a
        policy.
    """

    def __init__(
        self,
        model: Model,
        *,
        decode: Callable[[bytes], Mapping[str, object]],
        alternate: Callable[[Exchange], str | None],
    ) -> None:
        self._model = model
        self._decode = decode
        self._alternate = alternate
        self._routers: dict[tuple[str, str], Router] = {}

    def router(self, vhost: str, name: str) -> Router | None:
        """Return the router of an exchange, or None if there is no such exchange."""
        router = self._routers.get((vhost, name))
        if router is None:
            exchange = self._model.exchange(vhost, name)
            if exchange is None:
                return None
            router = self._routers[vhost, name] = Router(self, exchange)
        return router

    def apply(self, event: Event) -> None:
        """Follow one change of the catalog."""
        match event:
            case Created(Binding() as binding):
                self._follow_binding(binding, is_there=True)
            case Deleted(Binding() as binding):
                self._follow_binding(binding, is_there=False)
            case Deleted(Exchange() as exchange):
                # Of the exchanges bound to it, their deleted bindings tell.
                self._routers.pop((exchange.vhost, exchange.name), None)
            case Created(Policy()) | Changed(Policy()) | Deleted(Policy()):
                for router in self._routers.values():
                    router.forget()
            case Restored():
                for key, router in list(self._routers.items()):
                    if self._model.exchange(*key) == router.exchange:
                        router.recompile()
                    else:
                        del self._routers[key]

    def compile(self, exchange: Exchange) -> Matcher:
        """Return a matcher with the bindings that start from `exchange`."""
        matcher: Matcher
        match exchange_types.routes_like(exchange.type, self._decode(exchange.arguments)):
            case "direct":
                matcher = DirectMatcher()
            case "fanout":
                matcher = FanoutMatcher()
            case "topic":
                matcher = TopicMatcher()
            case "headers":
                matcher = HeadersMatcher(self._decode)
            case exchange_types.CONSISTENT_HASH:
                matcher = ConsistentHashMatcher(self._decode(exchange.arguments))
            case exchange_types.MODULUS_HASH:
                matcher = ModulusHashMatcher()
            case exchange_types.RANDOM:
                matcher = RandomMatcher()
            case other:
                raise AssertionError(f"an exchange of type {other!r} was declared")
        for binding in self._model.bindings_from(exchange.vhost, exchange.name):
            matcher.add(binding)
        return matcher

    def walk(
        self,
        start: Router,
        routing_key: str,
        headers: Callable[[], Headers],
        properties: Callable[[], Headers],
    ) -> tuple[tuple[Queue, ...], _Dependence]:
        """Follow the bindings from `start`, each exchange once, and say what the answer rests on.

        An exchange from which no binding leads on hands over to its alternate exchange.
        """
        vhost = start.exchange.vhost
        found: dict[int, Queue] = {}  # by uid
        views: dict[str, Headers] = {}
        dependence: _Dependence = "nothing"
        seen = {start.exchange.name}
        pending = [start]
        while pending:
            router = pending.pop()
            matcher = router.matcher
            if router.exchange.name == "":
                # Each queue is bound to the default exchange without a binding to tell of it.
                dependence = "more"
                queue = self._model.queue(vhost, routing_key)
                if queue is not None:
                    found[queue.uid] = queue
                continue
            view = _NO_HEADERS
            if matcher.reads in READS_EACH_MESSAGE:
                dependence = "more"
                if matcher.reads != "chance":
                    give = headers if matcher.reads == "headers" else properties
                    view = views[matcher.reads] = views.get(matcher.reads) or give()
            elif matcher.reads == "key" and dependence == "nothing":
                dependence = "key"
            onward: list[str] = []
            is_dead_end = True
            for binding in matcher.match(routing_key, view):
                is_dead_end = False
                if binding.kind == "exchange":
                    onward.append(binding.destination)
                    continue
                queue = self._model.queue(vhost, binding.destination)
                if queue is None:  # deleted; the news that its bindings went is on the way
                    dependence = "more"
                else:
                    found[queue.uid] = queue
            if is_dead_end:
                dependence = "more"
                alternate = self._alternate(router.exchange)
                if alternate is not None:
                    onward.append(alternate)
            for name in onward:
                if name not in seen:
                    seen.add(name)
                    following = self.router(vhost, name)
                    if following is not None:
                        pending.append(following)
        return tuple(found.values()), dependence

    def reaches_one_by_one(self, start: Router) -> bool:
        """Say whether some message to `start` may be routed by more than its key."""
        seen = {start.exchange.name}
        pending = [start]
        while pending:
            router = pending.pop()
            exchange = router.exchange
            if router.matcher.reads in READS_EACH_MESSAGE:
                return True
            onward = {
                binding.destination
                for binding in self._model.bindings_from(exchange.vhost, exchange.name)
                if binding.kind == "exchange"
            }
            alternate = self._alternate(exchange)
            if alternate is not None:
                onward.add(alternate)
            for name in onward - seen:
                seen.add(name)
                following = self.router(exchange.vhost, name)
                if following is not None:
                    pending.append(following)
        return False

    def _follow_binding(self, binding: Binding, *, is_there: bool) -> None:
        router = self._routers.get((binding.vhost, binding.source))
        if router is not None:
            if is_there:
                router.matcher.add(binding)
            else:
                router.matcher.remove(binding)
        self._forget_upstream(binding)

    def _forget_upstream(self, binding: Binding) -> None:
        """Make the source of `binding`, and every exchange that leads to it, forget its answers."""
        seen = {binding.source}
        pending = [binding.source]
        while pending:
            name = pending.pop()
            router = self._routers.get((binding.vhost, name))
            if router is not None:
                router.forget()
            for upstream in self._model.bindings_to(binding.vhost, "exchange", name):
                if upstream.source not in seen:
                    seen.add(upstream.source)
                    pending.append(upstream.source)
