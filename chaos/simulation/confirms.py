"""What a publisher of the simulator waits for: how its messages ended, in the broker's words."""

from __future__ import annotations

from abc import ABC, abstractmethod

import trio

from chaos.simulation.client import Client, Gone
from leveret.amqp import Ack, ContentReceived, Event, MethodReceived, spec


class Confirms(ABC):
    """Takes what comes to a publisher with confirms; its heirs know which message a tag means."""

    @property
    @abstractmethod
    def is_in_doubt(self) -> bool:
        """Whether some message has no outcome."""

    @abstractmethod
    def _settle(self, tag: int, *, multiple: bool, outcome: str) -> None:
        """Note that `tag`, or all up to it, was stored ("ok") or refused ("nack")."""

    def _return(self, body: bytes) -> None:
        """Note that no queue takes a message."""
        raise AssertionError("a message came back to a publisher that has a queue")

    async def _hear(self, client: Client, for_s: float) -> None:
        """Take what comes for a time. Raises Gone when the connection is over."""
        until_s = trio.current_time() + for_s
        while (wait_s := until_s - trio.current_time()) > 0:
            event = await client.next(within_s=wait_s)
            if event is not None:
                self._take(event)

    async def _hear_out(self, client: Client, *, within_s: float) -> None:
        """Wait until nothing is in doubt, as long as something comes in time.

        Raises:
            Gone: nothing came, or the connection is over.
        """
        while self.is_in_doubt:
            event = await client.next(within_s=within_s)
            if event is None:
                raise Gone("no confirm in time")
            self._take(event)

    def _take(self, event: Event) -> None:
        match event:
            case Ack():
                self._settle(event.delivery_tag, multiple=event.multiple, outcome="ok")
            case MethodReceived(method=spec.BasicNack() as nack):
                self._settle(nack.delivery_tag, multiple=nack.multiple, outcome="nack")
            case ContentReceived(method=spec.BasicReturn()):
                self._return(event.body)
            case MethodReceived(method=spec.ConnectionBlocked() | spec.ConnectionUnblocked()):
                pass
            case _:
                raise AssertionError(f"a publisher got {event}")
