"""A consumer over all incarnations of its channel: what it asked for, and what has come."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from .message import OFFSET
from .outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from leveret.amqp.fields import Table
    from leveret.client.errors import ClientError

    from .channel import ChannelCore
    from .message import BaseMessage

UNACKED_AHEAD_MAX: Final = 2_000
"""Messages without acknowledgement that may wait for the program before nothing more is read."""


class ConsumerCore:
    """One basic.consume. `ready` holds the messages that the program has not taken yet.

    One that reads a stream goes on, after a loss of its transport, behind what the program took.

    notify: called when there is something to look at: a message, or the end.
    """

    def __init__(
        self,
        channel: ChannelCore,
        tag: str,
        queue: str,
        *,
        no_ack: bool,
        exclusive: bool,
        prefetch: int,
        arguments: Table,
    ) -> None:
        self.channel = channel
        self.tag = tag
        self.key = tag.encode()
        self.queue = queue
        self.no_ack = no_ack
        self.exclusive = exclusive
        self.prefetch = prefetch
        self.arguments = arguments
        self.started: Outcome[None] = Outcome()
        self.error: ClientError | None = None
        """Why nothing more comes."""
        self.is_over = False
        self.ready: deque[BaseMessage] = deque()
        self.take: Callable[[BaseMessage], None] = self.ready.append
        """Where the deliveries go."""
        if self.reads_stream:
            self.take = self._take_of_stream
        self._next_offset: int | None = None
        """Behind the last message that came of a stream."""
        self.notify: Callable[[], None] | None = None

    @property
    def reads_stream(self) -> bool:
        """Whether its queue is a stream, which takes nothing back."""
        return OFFSET in self.arguments

    def _take_of_stream(self, message: BaseMessage) -> None:
        offset = message.offset
        self._next_offset = None if offset is None else offset + 1
        self.ready.append(message)

    @property
    def is_full(self) -> bool:
        """Whether more has come than the program should be given ahead."""
        return self.no_ack and len(self.ready) > UNACKED_AHEAD_MAX

    def tell(self) -> None:
        """Wake whoever waits for a message."""
        notify = self.notify
        if notify is not None:
            self.notify = None
            notify()

    def end(self, error: ClientError | None) -> None:
        """Nothing more comes; what is `ready` may still be taken."""
        if not self.is_over:
            self.is_over = True
            self.error = error
            if error is not None:
                self.started.fail(error)
            self.tell()

    def drop(self) -> None:
        """Forget what the program has not taken: the transport has gone, it comes again."""
        if self.reads_stream:
            offset = self.ready[0].offset if self.ready else self._next_offset
            if offset is not None:
                self.arguments = {**self.arguments, OFFSET: offset}
        self.ready.clear()
