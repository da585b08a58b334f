"""The actor of one exchange: where each run of publishes goes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from leveret.actors import Actor

from .headers import headers_of, properties_of
from .messages import PublishRun, Returned, tell
from .queues.dead_letters import DeadLetter
from .replies import PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from leveret.actors import Ref

    from .firehose import Origin
    from .messages import QueueMessage
    from .routing.router import Router


class ExchangeActor(Actor[PublishRun]):
    """Routes runs of publishes to the actors of queues.

    The compiled bindings follow the catalog by themselves, so a publish that comes after a
    bind-ok finds the binding there.
    """

    __slots__ = ("_queue", "_reply", "_router", "_trace")

    def __init__(
        self,
        router: Callable[[], Router | None],
        queue: Callable[[int], Ref[QueueMessage] | None],
        *,
        reply: Callable[[PublishRun], None] | None = None,
        trace: Callable[[Origin, PublishRun, Iterable[str]], None] | None = None,
    ) -> None:
        """Route by what `router` gives (None: the exchange is deleted), to what `queue` finds.

        reply: takes the runs that go to a requester (see `replies`), if this is the default
            exchange.
        trace: takes the runs that have an origin, with the names of their queues.
        """
        self._router = router
        self._queue = queue
        self._reply = reply
        self._trace = trace

    def receive(self, run: PublishRun) -> None:
        """Route a run; where more than the key decides, each of its messages alone."""
        router = self._router()
        if router is None:
            run.end()
            return
        if self._reply is not None and run.routing_key.startswith(PREFIX):
            self._reply(run)
        elif router.routes_one_by_one and len(run.records) > 1:
            for single in run.split():
                self._route(router, single)
        else:
            self._route(router, run)
        run.routed()

    def _route(self, router: Router, run: PublishRun) -> None:
        record = run.records[0]
        headers, properties = partial(headers_of, record), partial(properties_of, record)
        destinations = router.route(run.routing_key, headers, properties)
        if run.copies:
            by_uid = {queue.uid: queue for queue in destinations}
            for key in run.copies:
                by_uid |= {q.uid: q for q in router.route(key, headers, properties)}
            destinations = tuple(by_uid.values())
        is_unroutable = not destinations
        if run.visited:
            routed = len(destinations)
            destinations = tuple(queue for queue in destinations if queue.name not in run.visited)
            run.turn_away(routed - len(destinations))
        queues = [ref for queue in destinations if (ref := self._queue(queue.uid)) is not None]
        if run.origin is not None and self._trace is not None:
            self._trace(run.origin, run, [queue.name for queue in destinations])
        if not queues:
            if run.mandatory:
                tell(run.connection, Returned(run))
            if isinstance(run, DeadLetter):
                run.is_unroutable = is_unroutable
            run.go_home()
            return
        run.waiting = len(queues)
        for ref in queues:
            if not tell(ref, run):
                # The queue is there, and its actor is not: the node ends. Nobody stores it.
                run.answer(taken=0)
