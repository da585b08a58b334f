"""Publishers and consumers through pika, which hides nothing: a lost connection is an end.

What pika believes to be confirmed is what a user of RabbitMQ would. Each connection is a thread.
"""

from __future__ import annotations

from collections import OrderedDict
from random import Random
from typing import Final

import pika
import trio
from pika.channel import Channel

from chaos.history import Deliver, Ended, MessageId, Outcome, Publish, Settle, id_of
from chaos.load import LoadEnded, PikaClient
from chaos.workloads.clients import QUEUES, Clients, Pace, Route

SESSION_S: Final = (4.0, 20.0)
"""Least and longest life of one connection."""
FLUSH_S: Final = 40.0
"""How long a connection may take to end after that, most of it for the last confirms."""
CONFIRM_S: Final = 15.0
"""A publisher that waits so long for any confirm looks for another node."""
WINDOW: Final = 100
DRAIN_PREFETCH: Final = 200
REQUEUED: Final = 0.03
WORDLESS: Final = 0.3
"""How often a consumer hangs up in the middle of its work."""
PAUSE_S: Final = (0.05, 0.4)
PARAMETERS: Final = (
    "&connection_attempts=1&socket_timeout=3&stack_timeout=5&blocked_connection_timeout=20"
)


async def publish_forever(
    clients: Clients, name: str, routes: tuple[Route, ...], pace: Pace
) -> None:
    """Publish with confirms, in one connection after the other, until told to end."""
    rng = clients.rng(name)
    epoch = 0
    while clients.publishing:
        epoch += 1
        node = rng.choice(clients.cluster.nodes)
        publisher = _Publisher(
            clients, node.url, routes, rng, node=node.number, name=name, epoch=epoch, pace=pace
        )
        await _live(clients, publisher)
        await trio.sleep(rng.uniform(*PAUSE_S))


async def consume(clients: Clients, session: str, queue: str, rng: Random) -> None:
    """Consume in one session, until its time is over or all are told to end."""
    node = rng.choice(clients.cluster.nodes)
    await _live(clients, _Consumer(clients, node.url, session, queue, rng))
    await trio.sleep(rng.uniform(*PAUSE_S))


async def _live(clients: Clients, client: PikaClient) -> None:
    """Run a client's connection to its end."""

    def run() -> None:
        client.start()
        while client.ended is None:
            try:
                client.wait_ended(within_s=SESSION_S[1] + FLUSH_S)
            except LoadEnded:
                client.abandon()

    await trio.to_thread.run_sync(run, abandon_on_cancel=True)
    clients.trouble[f"pika: {(client.ended or '')[:40]}"] += 1


class _Session(PikaClient):
    """A connection with an end: it closes by itself, in a turn of its own loop."""

    def __init__(self, clients: Clients, url: str, rng: Random) -> None:
        super().__init__(url + PARAMETERS)
        self._clients = clients
        self._rng = rng
        self._until_s = clients.now() + rng.uniform(*SESSION_S)


class _Publisher(_Session):
    """One connection of a publisher."""

    def __init__(
        self,
        clients: Clients,
        url: str,
        routes: tuple[Route, ...],
        rng: Random,
        *,
        node: int,
        name: str,
        epoch: int,
        pace: Pace,
    ) -> None:
        super().__init__(clients, url, rng)
        self._pace = pace
        self._routes = routes
        self._node = node
        self._name = name
        self._epoch = epoch
        self._number = 0
        self._unconfirmed: OrderedDict[int, MessageId] = OrderedDict()
        self._returned: set[MessageId] = set()
        self._heard_s = clients.now()

    def _begin(self, channel: Channel) -> None:
        channel.add_on_return_callback(self._came_back)
        channel.confirm_delivery(self._answered, callback=lambda _: self._turn())

    def _turn(self) -> None:
        """Publish a few, then come again; end when the time is up and all is confirmed."""
        channel, clients, rng = self._channel, self._clients, self._rng
        if channel is None or not channel.is_open:
            return
        now = clients.now()
        if not self._unconfirmed:
            self._heard_s = now
        if clients.publishing and now < self._until_s:
            for _ in range(rng.choice(self._pace.bursts)):
                if len(self._unconfirmed) < WINDOW:
                    self._publish(channel)
        elif not self._unconfirmed:
            self._close()
            return
        if now - self._heard_s > CONFIRM_S:
            self._close()
            return
        self._connection.ioloop.call_later(self._pace.pause_s(rng), self._turn)

    def _publish(self, channel: Channel) -> None:
        self._number += 1
        id_ = MessageId(self._name, self._epoch, self._number)
        route = self._rng.choice(self._routes)
        body = self._clients.body(id_, route.queues, self._rng)
        self._unconfirmed[self._number] = id_
        self._clients.history.add(Publish(self._clients.now(), id_, route.queues, self._node))
        channel.basic_publish(
            route.exchange,
            route.routing_key,
            body,
            pika.BasicProperties(delivery_mode=2),
            mandatory=True,
        )

    def _came_back(self, _channel: Channel, _method: object, _header: object, body: bytes) -> None:
        self._returned |= {
            id_ for queue in QUEUES if (id_ := id_of(self._clients.run, queue, body)) is not None
        }

    def _answered(self, frame: pika.frame.Method) -> None:
        clients = self._clients
        self._heard_s = clients.now()
        answer = frame.method
        is_ack = isinstance(answer, pika.spec.Basic.Ack)
        tags = [answer.delivery_tag]
        if answer.multiple:
            tags = [tag for tag in self._unconfirmed if tag <= answer.delivery_tag]
        for tag in tags:
            id_ = self._unconfirmed.pop(tag)
            clients.confirmed_by[self._node] += is_ack
            what = "returned" if id_ in self._returned else "ok" if is_ack else "nack"
            clients.history.add(Outcome(clients.now(), id_, what))


class _Consumer(_Session):
    """One connection of a consumer."""

    def __init__(self, clients: Clients, url: str, session: str, queue: str, rng: Random) -> None:
        super().__init__(clients, url, rng)
        self._session = session
        self._queue = queue
        self._prefetch = DRAIN_PREFETCH if clients.is_draining else rng.choice((5, 20, 100))
        self._patience = 1 if clients.is_draining else rng.choice((1, 3, self._prefetch))
        self._unsettled: list[int] = []

    def _begin(self, channel: Channel) -> None:
        channel.basic_qos(prefetch_count=self._prefetch)
        channel.basic_consume(self._queue, self._delivered, callback=lambda _: self._turn())

    def _turn(self) -> None:
        """Settle what waits, then come again; end when the time is up."""
        clients, channel = self._clients, self._channel
        if channel is None or not channel.is_open:
            return
        if self._unsettled:
            self._settle(channel)
        is_over = clients.now() > self._until_s and not clients.is_draining
        if is_over and clients.consuming and self._rng.random() < WORDLESS:
            self._hang_up()
        elif is_over or not clients.consuming:
            # Closing goes behind the acknowledgements, so its answer is theirs, too.
            channel.add_on_close_callback(self._ended_in_order)
            self._close()
        else:
            self._connection.ioloop.call_later(0.1, self._turn)

    def _ended_in_order(self, _: Channel, error: Exception) -> None:
        if isinstance(error, pika.exceptions.ChannelClosedByClient):
            self._clients.history.add(Ended(self._clients.now(), self._queue, self._session))

    def _delivered(
        self,
        channel: Channel,
        deliver: pika.spec.Basic.Deliver,
        _: pika.BasicProperties,
        body: bytes,
    ) -> None:
        clients = self._clients
        clients.history.add(
            Deliver(
                clients.now(),
                self._queue,
                self._session,
                bool(deliver.redelivered),
                id_of(clients.run, self._queue, body),
                deliver.delivery_tag,
            )
        )
        self._unsettled.append(deliver.delivery_tag)
        if len(self._unsettled) >= self._patience:
            self._settle(channel)

    def _settle(self, channel: Channel) -> None:
        clients, rng = self._clients, self._rng
        is_requeue = not clients.is_draining and rng.random() < REQUEUED
        tags, self._unsettled = self._unsettled, []
        for tag in tags:
            kind = "requeue" if is_requeue else "ack"
            clients.history.add(Settle(clients.now(), self._queue, self._session, tag, kind))
        if is_requeue:
            channel.basic_nack(tags[-1], multiple=True, requeue=True)
        else:
            channel.basic_ack(tags[-1], multiple=True)
