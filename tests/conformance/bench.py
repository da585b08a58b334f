"""What a case of the transcripts works with: a py-amqp channel, and names that nobody used."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

import amqp
import pytest

CHANNEL, CONNECTION = "channel", "connection"
LOCKED = (
    "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{queue}' in vhost "
    "'{vhost}'. It could be originally declared on another connection or the exclusive property "
    "value does not match that of the original declaration."
)


def _new_name() -> str:
    return f"t-{uuid.uuid4().hex[:12]}"


@dataclass
class Bench:
    """A fresh connection and channel to a broker's virtual host, and names that nobody used."""

    connect: Callable[[], amqp.Connection]
    vhost: str
    user: str
    queue: str = field(default_factory=_new_name)
    exchange: str = field(default_factory=_new_name)
    others: list[amqp.Connection] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.connection = self.connect()
        self.channel = self.connection.channel()

    @property
    def is_leveret(self) -> bool:
        """Whether the broker under test is ours, which says so beside RabbitMQ's properties."""
        return bool(self.connection.server_properties.get("broker") == "Leveret")

    def declare(self, **changes: object) -> None:
        settings = {"durable": False, "exclusive": False, "auto_delete": False, **changes}
        self.channel.queue_declare(self.queue, **settings)

    def declare_exchange(
        self,
        kind: str = "direct",
        *,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: dict[str, object] | None = None,
    ) -> None:
        # py-amqp's own method cannot say internal.
        bits = (False, durable, auto_delete, internal, False)
        self.channel.send_method(
            amqp.spec.Exchange.Declare,
            "BssbbbbbF",
            (0, self.exchange, kind, *bits, arguments or {}),
            wait=amqp.spec.Exchange.DeclareOk,
        )

    def publish(self, exchange: str, key: str = "", **properties: object) -> None:
        self.channel.basic_publish(amqp.Message(b"x", **properties), exchange, key)

    def consume(self, **options: object) -> None:
        self.channel.basic_consume(self.queue, callback=lambda message: None, **options)

    def wait(self) -> None:
        """Wait for what the broker sends of itself."""
        self.connection.drain_events(timeout=10)

    def elsewhere(self) -> amqp.Channel:
        """A channel of another connection."""
        self.others.append(self.connect())
        return self.others[-1].channel()

    def clean_up(self) -> None:
        """Close the connections, and delete what has the bench's names."""
        for connection in (self.connection, *self.others):
            if connection.connected:
                connection.close()
        cleaner = self.connect()
        channel = cleaner.channel()
        channel.queue_delete(self.queue)
        channel.exchange_delete(self.exchange)
        cleaner.close()

    def assert_refused(
        self, act: Callable[[Bench], object], scope: str, code: int, text: str
    ) -> None:
        """Assert that `act` is refused in these words and closes what they are to close.

        text: with `{queue}`, `{exchange}`, `{vhost}` and `{user}` for the bench's names.
        """
        with pytest.raises(amqp.exceptions.AMQPError) as refusal:
            act(self)

        expected = text
        for name in ("queue", "exchange", "vhost", "user"):
            expected = expected.replace(f"{{{name}}}", getattr(self, name))
        assert (code, expected) == (refusal.value.reply_code, refusal.value.reply_text)
        if scope == CONNECTION:
            assert not self.connection.connected
        else:
            self.connection.channel().queue_declare(self.queue + "-alive", exclusive=True)
