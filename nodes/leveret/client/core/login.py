"""The client's part of the handshake: what it answers to start, tune and secure.

Spec: AMQP 0-9-1, 2.2.4 and 1.4.2; the mechanisms are PLAIN (RFC 4616) and EXTERNAL (RFC 4422).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from leveret.amqp import spec
from leveret.client.errors import AuthenticationRefused

if TYPE_CHECKING:
    from leveret.amqp.fields import Table, Value

CAPABILITIES: Final[dict[str, Value]] = {
    "publisher_confirms": True,
    "consumer_cancel_notify": True,
    "exchange_exchange_bindings": True,
    "basic.nack": True,
    "connection.blocked": True,
    "authentication_failure_close": True,
}


@dataclass(frozen=True)
class Login:
    """Who wants to log in, where, and with which limits; 0 leaves a limit to the broker.

    external: by the TLS certificate, with the mechanism EXTERNAL.
    """

    user: str
    password: str
    vhost: str
    external: bool = False
    heartbeat_s: int = 60
    frame_max: int = 131_072
    channel_max: int = 0
    name: str = ""
    software: str = "leveret.client"

    def start_ok(self, start: spec.ConnectionStart) -> spec.ConnectionStartOk:
        """The answer to the broker's greeting.

        Raises:
            AuthenticationRefused: it offers no mechanism that we have.
        """
        offered = start.mechanisms.decode("utf-8", "replace").split()
        mechanism = "EXTERNAL" if self.external else "PLAIN"
        if mechanism not in offered:
            raise AuthenticationRefused(
                f"the broker offers the mechanisms {' '.join(offered)}, not {mechanism}: "
                + (
                    "enable it there (for RabbitMQ, rabbitmq_auth_mechanism_ssl), or log in with "
                    "user and password"
                    if self.external
                    else "log in with a certificate (external=True), or enable PLAIN there"
                )
            )
        if self.external:
            response = self.user.encode()
        else:
            response = f"\0{self.user}\0{self.password}".encode("utf-8", "surrogateescape")
        properties: Table = {
            "product": self.software,
            "platform": "Python",
            "capabilities": CAPABILITIES,
        }
        if self.name:
            properties["connection_name"] = self.name
        return spec.ConnectionStartOk(
            client_properties=properties, mechanism=mechanism, response=response
        )

    def tune_ok(self, tune: spec.ConnectionTune) -> spec.ConnectionTuneOk:
        """The limits that both sides accept."""
        return spec.ConnectionTuneOk(
            channel_max=_smaller(self.channel_max, tune.channel_max),
            frame_max=_smaller(self.frame_max, tune.frame_max),
            heartbeat=_smaller(self.heartbeat_s, tune.heartbeat) if self.heartbeat_s else 0,
        )


def _smaller(one: int, other: int) -> int:
    """The smaller of two limits, of which 0 means none."""
    return min(one, other) if one and other else one or other
