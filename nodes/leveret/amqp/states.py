"""The states of a connection and of a channel, and everything that changes them.

Rule 1: every transition is an entry of a table in this file. Rule 2: the tables do not know which
role we play. Both parties see the same conversation, so a transition is (state, who sent, what):
a server uses an entry when it receives what a client uses it for when sending. That is what keeps
the two roles from being given different rules.

Spec: AMQP 0-9-1, 2.2.4 (connection), 2.2.5 (channel); collisions of close as RabbitMQ meets them:
each side answers the other's close and waits for its own close-ok.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from leveret.amqp import spec


class Role(Enum):
    """Who sent something."""

    CLIENT = auto()
    SERVER = auto()

    @property
    def peer(self) -> Role:
        """The other one."""
        return Role.SERVER if self is Role.CLIENT else Role.CLIENT


class ConnectionState(Enum):
    """Where the conversation on channel 0 stands; the comment says who is to speak."""

    NEW = auto()  # client: the protocol header
    GREETED = auto()  # server: start
    STARTING = auto()  # client: start-ok
    SECURING = auto()  # server: secure, or tune, or an end
    CHALLENGED = auto()  # client: secure-ok
    TUNING = auto()  # client: tune-ok
    OPENING = auto()  # client: open
    ADMITTING = auto()  # server: open-ok, or an end
    RUNNING = auto()
    CLIENT_CLOSING = auto()  # server: close-ok
    SERVER_CLOSING = auto()  # client: close-ok
    BOTH_CLOSING = auto()  # both: close-ok
    CLOSED = auto()


class ChannelState(Enum):
    """Where a channel's conversation stands. A channel that is not known is closed."""

    OPEN = auto()
    CLIENT_CLOSING = auto()
    SERVER_CLOSING = auto()
    BOTH_CLOSING = auto()
    CLOSED = auto()


_C = ConnectionState
_CLIENT = Role.CLIENT
_SERVER = Role.SERVER

# Once begun, a connection may be closed from any state by either party.
_CLOSABLE: Final = (
    _C.STARTING,
    _C.SECURING,
    _C.CHALLENGED,
    _C.TUNING,
    _C.OPENING,
    _C.ADMITTING,
    _C.RUNNING,
)

CONNECTION: Final[dict[tuple[ConnectionState, Role, int], ConnectionState]] = {
    (_C.GREETED, _SERVER, spec.ConnectionStart.ID): _C.STARTING,
    (_C.STARTING, _CLIENT, spec.ConnectionStartOk.ID): _C.SECURING,
    (_C.SECURING, _SERVER, spec.ConnectionSecure.ID): _C.CHALLENGED,
    (_C.CHALLENGED, _CLIENT, spec.ConnectionSecureOk.ID): _C.SECURING,
    (_C.SECURING, _SERVER, spec.ConnectionTune.ID): _C.TUNING,
    (_C.TUNING, _CLIENT, spec.ConnectionTuneOk.ID): _C.OPENING,
    (_C.OPENING, _CLIENT, spec.ConnectionOpen.ID): _C.ADMITTING,
    (_C.ADMITTING, _SERVER, spec.ConnectionOpenOk.ID): _C.RUNNING,
    # No change of state, but only while running.
    (_C.RUNNING, _SERVER, spec.ConnectionBlocked.ID): _C.RUNNING,
    (_C.RUNNING, _SERVER, spec.ConnectionUnblocked.ID): _C.RUNNING,
    (_C.RUNNING, _CLIENT, spec.ConnectionUpdateSecret.ID): _C.RUNNING,
    (_C.RUNNING, _SERVER, spec.ConnectionUpdateSecretOk.ID): _C.RUNNING,
    **{(s, _CLIENT, spec.ConnectionClose.ID): _C.CLIENT_CLOSING for s in _CLOSABLE},
    **{(s, _SERVER, spec.ConnectionClose.ID): _C.SERVER_CLOSING for s in _CLOSABLE},
    (_C.CLIENT_CLOSING, _SERVER, spec.ConnectionClose.ID): _C.BOTH_CLOSING,
    (_C.SERVER_CLOSING, _CLIENT, spec.ConnectionClose.ID): _C.BOTH_CLOSING,
    (_C.CLIENT_CLOSING, _SERVER, spec.ConnectionCloseOk.ID): _C.CLOSED,
    (_C.SERVER_CLOSING, _CLIENT, spec.ConnectionCloseOk.ID): _C.CLOSED,
    (_C.BOTH_CLOSING, _SERVER, spec.ConnectionCloseOk.ID): _C.SERVER_CLOSING,
    (_C.BOTH_CLOSING, _CLIENT, spec.ConnectionCloseOk.ID): _C.CLIENT_CLOSING,
}

_H = ChannelState

CHANNEL: Final[dict[tuple[ChannelState, Role, int], ChannelState]] = {
    (_H.CLOSED, _CLIENT, spec.ChannelOpen.ID): _H.OPEN,
    (_H.OPEN, _CLIENT, spec.ChannelClose.ID): _H.CLIENT_CLOSING,
    (_H.OPEN, _SERVER, spec.ChannelClose.ID): _H.SERVER_CLOSING,
    (_H.CLIENT_CLOSING, _SERVER, spec.ChannelClose.ID): _H.BOTH_CLOSING,
    (_H.SERVER_CLOSING, _CLIENT, spec.ChannelClose.ID): _H.BOTH_CLOSING,
    (_H.CLIENT_CLOSING, _SERVER, spec.ChannelCloseOk.ID): _H.CLOSED,
    (_H.SERVER_CLOSING, _CLIENT, spec.ChannelCloseOk.ID): _H.CLOSED,
    (_H.BOTH_CLOSING, _SERVER, spec.ChannelCloseOk.ID): _H.SERVER_CLOSING,
    (_H.BOTH_CLOSING, _CLIENT, spec.ChannelCloseOk.ID): _H.CLIENT_CLOSING,
}

SPEAKER: Final[dict[ConnectionState, Role]] = {
    _C.NEW: _CLIENT,
    _C.GREETED: _SERVER,
    _C.STARTING: _CLIENT,
    _C.SECURING: _SERVER,
    _C.CHALLENGED: _CLIENT,
    _C.TUNING: _CLIENT,
    _C.OPENING: _CLIENT,
    _C.ADMITTING: _SERVER,
}
"""Who is to speak next during the handshake; the other one reads nothing further until then."""

ENDING: Final = frozenset((_C.CLIENT_CLOSING, _C.SERVER_CLOSING, _C.BOTH_CLOSING, _C.CLOSED))
"""States in which everything but close and close-ok is dropped."""

ANSWERABLE: Final = frozenset((_C.TUNING, _C.OPENING, _C.ADMITTING, _C.RUNNING))
"""States in which an error of the peer is answered with connection.close.

Before, the specification has the socket closed without a word, lest unauthenticated peers learn
anything; a refused login is the one exception, and the broker's own decision.
"""

# RabbitMQ's words for the states, as its error texts show them.
WORDS: Final[dict[ConnectionState, str]] = {
    _C.NEW: "pre_init",
    _C.GREETED: "starting",
    _C.STARTING: "starting",
    _C.SECURING: "securing",
    _C.CHALLENGED: "securing",
    _C.TUNING: "tuning",
    _C.OPENING: "opening",
    _C.ADMITTING: "opening",
    _C.RUNNING: "running",
    _C.CLIENT_CLOSING: "closing",
    _C.SERVER_CLOSING: "closing",
    _C.BOTH_CLOSING: "closing",
    _C.CLOSED: "closed",
}
