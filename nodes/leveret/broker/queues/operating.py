"""What an operator has a queue's leader do with it: pause, resume, end delayed messages.

Deliveries are the leader's soft state, so a command that takes messages away must not come to the
log when another leader, who does not know of it, has handed them out.  A *hold* sees to that: the
leader takes one, and only if it still leads when the log has it, sends the command, which counts
under that hold alone.  The next leader replaces the hold before it delivers anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from leveret.broker.messages import LeadAction, NotLeading, QueueGone

from . import machine
from .ranges import to_ranges

if TYPE_CHECKING:
    from collections.abc import Callable

    from .lead import Lead
    from .stream_lead import StreamLead

CANCEL_MAX: Final = 10_000
"""Messages that one action cancels."""


class Busy(Exception):
    """The leader is doing something else for an operator."""


class Pause(LeadAction[bool]):
    """Stop the queue's deliveries, or let them go on; the answer is whether that is a change."""

    def __init__(self, *, is_paused: bool) -> None:
        super().__init__()
        self._is_paused = is_paused

    def carry_out(self, lead: Lead) -> None:
        """Answer when the log has it."""
        self._pause(lead)

    def carry_out_on_stream(self, lead: StreamLead) -> None:
        """As `carry_out`."""
        self._pause(lead)

    def _pause(self, lead: Lead | StreamLead) -> None:
        if lead.state.is_paused == self._is_paused:
            self.reply(False)
            return

        def done(reply: object) -> None:
            if reply == machine.OK:
                self.reply(True)
            else:
                self.fail(QueueGone())

        lead.submit(machine.pause(lead.uid, is_paused=self._is_paused), done)


class CancelDelayed(LeadAction[int]):
    """End delayed messages before they are due; the answer is how many."""

    def __init__(self, sequence: int | None) -> None:
        """End message `sequence`, or with None those that are due first, `CANCEL_MAX` at most."""
        super().__init__()
        self._sequence = sequence

    def carry_out(self, lead: Lead) -> None:
        """Answer when the log has it.

        Raises (through the answer):
            Busy
        """
        lead.note_lives()
        dispatcher = lead.dispatcher
        if self._sequence is None:
            chosen = dispatcher.delayed(CANCEL_MAX)
        else:
            chosen = [self._sequence] if dispatcher.is_delayed(self._sequence) else []
        if not chosen:
            self.reply(0)
            return
        if lead.is_acting:
            self.fail(Busy())
            return
        dispatcher.withdraw_delayed(chosen)

        def held(number: int, _: int) -> None:
            lead.submit(machine.cancel(lead.uid, number, to_ranges(chosen)), cancelled)
            lead.submit(machine.let_go(lead.uid, number), lambda _: None)

        def cancelled(reply: object) -> None:
            lead.is_acting = False
            match reply:
                case ("done", int(count)):
                    self.reply(count)
                case _:
                    self.fail(QueueGone() if reply == machine.GONE else NotLeading())

        hold(lead, held, self.fail)


def hold(
    lead: Lead,
    held: Callable[[int, int], None],
    fail: Callable[[Exception], None],
    way: machine.Way | None = None,
) -> None:
    """Take a hold; then call `held`, or `fail` if the lead is lost meanwhile.

    held: takes its number, and how many messages were on their way before (see `machine.hold`).
    """
    lead.is_acting = True

    def done(reply: object) -> None:
        match reply:
            case ("held", int(number), int(before)) if lead.is_current:
                held(number, before)
            case _:
                lead.is_acting = False
                fail(QueueGone() if reply == machine.GONE else NotLeading())

    lead.submit(machine.hold(lead.uid, way), done)
