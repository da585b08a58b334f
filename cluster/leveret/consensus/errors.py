"""What can go wrong in consensus, and what the caller can do about it."""

from __future__ import annotations


class ConsensusError(Exception):
    """Base of this package's errors."""


class BadMessage(ConsensusError):
    """A peer sent something that is no message of ours: drop it, and the link may be closed."""


class BadEntry(ConsensusError):
    """The bytes of a log entry or a batch do not follow the layout of `entries`."""


class BadSnapshot(ConsensusError):
    """A snapshot does not fit the log beside it, or its bytes are not ours: restore a backup."""


class SafetyViolation(ConsensusError):
    """Going on could lose what was acknowledged: the process must end, and a person must look."""


class MachineFailed(ConsensusError):
    """The replicated machine raised while applying: its state is unknown, so the process ends.

    The cause is chained; it is a bug of the machine, for a machine is total.
    """
