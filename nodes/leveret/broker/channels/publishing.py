"""What a channel's client publishes: runs on their way to exchanges, and the confirms of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from leveret.amqp import errors, spec
from leveret.amqp.delivery import encode_record, encode_return
from leveret.amqp.properties import flags
from leveret.broker.messages import PublishRun, tell

from .operations.naming import no_exchange
from .published import LOOKED_AT, NO_COPIES, checked

if TYPE_CHECKING:
    from leveret.actors import Ref
    from leveret.amqp.events import Publish
    from leveret.broker.numbering import Numbering

    from .channel import Channel
    from .confirms import Confirms

ROUTES_MAX: Final = 1_024
"""Routes (exchange and routing key) whose checks a channel remembers; then it starts anew."""

RUN_BYTES_MAX: Final = 1 << 20
"""A run of publishes goes to its exchange at this size, even if more with its route follow."""


class Publishing:
    """See the module."""

    def __init__(self, channel: Channel, numbering: Numbering | None) -> None:
        self._channel = channel
        self._connection = channel.connection
        self._counters = channel.connection.services.counters
        self._numbering = numbering
        self.confirms: Confirms | None = None
        """None: the client did not say confirm.select."""
        self.under_way = 0
        """Messages published and not taken by their queues yet."""
        self._run: PublishRun | None = None
        self._run_key: tuple[bytes, bool] | None = None
        self._actor: Ref[PublishRun] | None = None
        """Where the open run goes."""
        self._last_run: PublishRun | None = None
        self._routes: dict[bytes, tuple[str, str, Ref[PublishRun]]] = {}
        self._routes_version = 0
        """The directory's version of which `_routes` is."""
        self._all_taken = trio.Event()

    def publish(self, event: Publish) -> None:
        """Take a message from the client.

        Raises:
            AmqpError: it is refused.
        """
        if event.immediate:
            raise errors.not_implemented("immediate=true")
        version = self._connection.services.directory.version
        if version != self._routes_version:
            self._routes.clear()
            self._routes_version = version
        known = self._routes.get(event.route)
        if known is None:
            self.send_run()
            actor = self._connection.publish_actor(event.exchange, event.routing_key)
            if actor is None:
                # It may be so new that this node has not heard of it.
                self._channel.find_exchange_of(event)
                return
            if len(self._routes) >= ROUTES_MAX:
                self._routes.clear()
            known = self._routes[event.route] = (event.exchange, event.routing_key, actor)
        header, has_lives, copies = event.header, False, NO_COPIES
        if flags(header) & LOOKED_AT:
            header, has_lives, copies = checked(
                header,
                body_size=len(event.body),
                user=self._connection.user,
                replies=self._channel.replies,
            )
            if copies:
                self.send_run()
                for key in copies:
                    # Refused by RabbitMQ from 4.0 on: a copy is a publish with another key.
                    self._connection.publish_actor(event.exchange, key)
        run = self._run
        if run is None or self._run_key != (event.route, event.mandatory):
            self.send_run()
            if self._channel.transaction is not None:
                self._connection.check_held()
            self._actor = known[2]
            run = self._run = PublishRun(
                connection=self._connection.ref,
                channel=self._channel.number,
                epoch=self._channel.epoch,
                exchange=known[0],
                routing_key=known[1],
                mandatory=event.mandatory,
                first_confirm=0 if self.confirms is None else self.confirms.issued + 1,
                numbering=None if self.confirms is None else self._numbering,
            )
            run.origin = self._connection.origin(self._channel.number)
            self._run_key = (event.route, event.mandatory)
        if self.confirms is not None:
            self.confirms.issued += 1
        record = encode_record(event.route, header, event.body)
        run.records.append(record)
        run.size_bytes += len(record)
        if has_lives:
            run.has_lives = True
        run.copies = copies
        if copies or run.size_bytes >= RUN_BYTES_MAX:
            self.send_run()

    def send_run(self) -> None:
        """Tell the exchange what was published so far, or hold it for the transaction."""
        run, self._run, self._run_key = self._run, None, None
        if run is None:
            return
        if self._channel.transaction is not None:
            self._channel.transaction.runs.append(run)
            self._connection.held(run.cost_bytes)
            return
        actor = self._actor
        assert actor is not None, "a run has an exchange"
        self._send(run, actor)

    def _send(self, run: PublishRun, actor: Ref[PublishRun]) -> None:
        self._connection.sent(run)
        self.under_way += len(run.records)
        self._counters.published += len(run.records)
        before, self._last_run = self._last_run, run
        if before is None:
            run.is_told = True
            if not tell(actor, run):
                run.lose()
        else:
            before.goes_before(run, actor)

    def run_home(self, run: PublishRun) -> None:
        """Note that every queue has (or refused) the messages of `run`."""
        self.under_way -= len(run.records)
        if self._last_run is run:
            self._last_run = None
        if not self.under_way:
            self._last_run = None  # it may have come home in parts
            self._all_taken.set()
            self._channel.look_if_idle()
        if self.confirms is not None and run.first_confirm:
            count = len(run.records)
            taken = min(run.taken, count)
            if taken:
                self.confirms.done(run.first_confirm, taken, refused=False)
                self._counters.confirmed += taken
            if taken < count:
                self.confirms.done(run.first_confirm + taken, count - taken, refused=True)
        elif run.refused and self._channel.transaction is not None:
            self._channel.transaction.is_partial = True

    async def all_taken(self) -> None:
        """Wait until the queues have all that was published here so far.

        What the client asks a queue next on the same channel must find it there.
        """
        while self.under_way and not self._channel.is_closed:
            if self._all_taken.is_set():
                self._all_taken = trio.Event()
            await self._all_taken.wait()

    def close(self) -> None:
        """Wake whoever waits: nothing more comes."""
        self._all_taken.set()

    def returned(self, run: PublishRun) -> None:
        """Send the mandatory messages of `run` back."""
        for record in run.records:
            self._connection.out.append(
                encode_return(
                    self._channel.number,
                    312,
                    "NO_ROUTE",
                    record,
                    frame_max=self._connection.frame_max,
                )
            )

    def write_confirms(self) -> None:
        """Tell the publisher what was confirmed since the last time."""
        if self.confirms is None:
            return
        for confirm in self.confirms.take():
            if confirm.refused:
                self._channel.write(
                    spec.BasicNack(delivery_tag=confirm.tag, multiple=confirm.multiple)
                )
            else:
                self._channel.write(
                    spec.BasicAck(delivery_tag=confirm.tag, multiple=confirm.multiple)
                )

    def commit(self) -> None:
        """Publish what the transaction holds; `all_taken` tells when it is stored.

        Raises:
            AmqpError: nothing is published. 406, the channel is not transactional; 404, one of
                the exchanges is deleted since; 403, the user may not write to it any more.
        """
        transaction = self._channel.transactional()
        actors: list[Ref[PublishRun]] = []
        for run in transaction.runs:
            actor = self._connection.publish_actor(run.exchange, run.routing_key)
            if actor is None:
                raise no_exchange(self._channel, run.exchange)
            actors.append(actor)
        self._connection.unheld(transaction.cost_bytes)
        runs, transaction.runs = transaction.runs, []
        transaction.is_partial = False
        for run, actor in zip(runs, actors, strict=True):
            self._send(run, actor)
