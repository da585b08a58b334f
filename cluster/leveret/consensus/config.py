"""Limits of one group."""

from __future__ import annotations

from dataclasses import dataclass, field

from leveret.consensus.engine import EngineConfig

COMMAND_BYTES_MAX = 144 * 1024 * 1024
"""Of one command. An entry of it alone fits into one frame of the transport (160 MiB), and
RabbitMQ's largest message is 128 MiB."""

TRANSFER_LAG_MAX = 16
"""Entries that a member may lack when it asks for leadership."""


@dataclass(frozen=True, slots=True)
class GroupConfig:
    """Limits of one group.

    entries_in_flight_max: entries proposed and not yet applied; while one is, the next gathers.
    stall_s: submissions are sent again when none of them was applied for this long.
    pending_bytes_high: `room` waits above it.
    snapshot_entries, snapshot_bytes: a snapshot is taken after so many applied, whichever is first.
    """

    engine: EngineConfig = field(default_factory=EngineConfig)
    entries_in_flight_max: int = 4
    stall_s: float = 1.0
    pending_bytes_high: int = 16 * 1024 * 1024
    snapshot_entries: int = 50_000
    snapshot_bytes: int = 256 * 1024 * 1024
