"""The two roles of a connection: what each checks and begins with. The rest is `core`."""

from __future__ import annotations

from typing import Final

from leveret.amqp import spec
from leveret.amqp.core import MESSAGE_SIZE_MAX, Connection
from leveret.amqp.errors import not_allowed
from leveret.amqp.method import Method
from leveret.amqp.states import ConnectionState, Role

CHANNEL_MAX_MIN: Final = 1


class ServerConnection(Connection):
    """The broker's end.

    Answers what needs an answer in the handshake: `MethodReceived(0, …)` comes, `send_method`
    follows, then `receive_data(b"")`. The first answer, connection.start, is owed when the state
    is GREETED.
    """

    role = Role.SERVER

    def __init__(self, *, message_size_max: int = MESSAGE_SIZE_MAX) -> None:
        super().__init__(message_size_max=message_size_max)
        self._offered = spec.ConnectionTune()

    def _settle(self, method: Method) -> None:
        if isinstance(method, spec.ConnectionTune):
            self._offered = method
        super()._settle(method)

    def _check(self, method: Method) -> None:
        """A client may lower what was offered, not raise it. Spec: 1.4.2.6, tune-ok."""
        if isinstance(method, spec.ConnectionTuneOk):
            offered = self._offered
            _check_limit("frame_max", spec.FRAME_MIN_SIZE, offered.frame_max, method.frame_max)
            _check_limit("channel_max", CHANNEL_MAX_MIN, offered.channel_max, method.channel_max)


class ClientConnection(Connection):
    """The client's end. Write `begin()` first; every method of the broker comes as an event."""

    role = Role.CLIENT

    def begin(self) -> bytes:
        """The protocol header, which opens the conversation."""
        assert self.state is ConnectionState.NEW
        self.state = ConnectionState.GREETED
        return spec.PROTOCOL_HEADER


def _check_limit(name: str, least: int, offered: int, wanted: int) -> None:
    """Refuse a limit below `least` or above what was offered, in RabbitMQ's words; 0 = no limit."""
    if wanted and wanted < least:
        relation, bound, value = "lower", "minimum", least
    elif offered and (not wanted or wanted > offered):
        relation, bound, value = "higher", "maximum", offered
    else:
        return
    detail = " (no limit)" if name == "channel_max" and not wanted else ""
    raise not_allowed(
        f"negotiated {name} = {wanted}{detail} is {relation} than the {bound} allowed value "
        f"({value})",
        spec.ConnectionTune.CLASS_ID,
        spec.ConnectionTune.METHOD_ID,
    )
