"""The actor kernel: owners of state behind mailboxes, in a supervision tree of trio nurseries.

Actors tell; edges (socket readers, HTTP handlers, the command line) ask and wait for room. Knows
trio and nothing of Leveret.
"""

from leveret.actors.actor import Actor, Request
from leveret.actors.probe import Probe
from leveret.actors.ref import ActorError, ActorStopped, MailboxFull, Ref, RefStatistics
from leveret.actors.supervisor import Supervisor, supervise
from leveret.actors.timers import Timer, Timers

__all__ = [
    "Actor",
    "ActorError",
    "ActorStopped",
    "MailboxFull",
    "Probe",
    "Ref",
    "RefStatistics",
    "Request",
    "Supervisor",
    "Timer",
    "Timers",
    "supervise",
]
