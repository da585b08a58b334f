"""Alarms that hold publishers back, and the watermark of this node's memory."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec

from leveret.node.units import WATERMARK

from .controls import Arguments, ControlError, Controls, NoArguments

if TYPE_CHECKING:
    from .parts import NodeParts


class AlarmSeen(msgspec.Struct, frozen=True, kw_only=True):
    """An alarm, and the node that has it."""

    node: str
    reason: str
    """As clients are told it."""


class WatermarkArguments(Arguments, frozen=True):
    """As the setting `node.memory_watermark` is written."""

    watermark: str


class MemoryLimit(msgspec.Struct, frozen=True, kw_only=True):
    """What a watermark comes to; None where the system does not tell how much memory there is."""

    node: str
    memory_limit_bytes: int | None


def add_alarm_verbs(controls: Controls, parts: NodeParts) -> None:
    """Put the verbs into the table."""
    controls.add("alarms", NoArguments, partial(_alarms, parts))
    controls.add("set_vm_memory_high_watermark", WatermarkArguments, partial(_set, parts))


async def _alarms(parts: NodeParts, _: NoArguments) -> list[AlarmSeen]:
    names = {node.id: node.name for node in parts.catalog.model.nodes()}
    return [
        AlarmSeen(node=names.get(alarm.node, str(alarm.node)), reason=alarm.reason)
        for alarm in parts.alarms.raised()
    ]


async def _set(parts: NodeParts, arguments: WatermarkArguments) -> MemoryLimit:
    try:
        watermark = WATERMARK.parse(arguments.watermark)
    except ValueError as error:
        raise ControlError("malformed", f"{arguments.watermark!r}: {error}") from None
    parts.alarms.set_memory_watermark(watermark)
    return MemoryLimit(node=parts.identity.name, memory_limit_bytes=parts.alarms.memory_limit_bytes)
