"""`leveret ctl`: the alarms that hold publishers back, and the limit of a node's memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from leveret.cli.ctl_target import asks, rows_of
from leveret.cli.figures import bytes_text
from leveret.node.control.alarms import AlarmSeen, MemoryLimit
from leveret.node.units import WATERMARK

if TYPE_CHECKING:
    from leveret.cli.ctl_target import Target


@click.command("alarms")
@asks
def alarms(*, target: Target) -> None:
    """List the alarms that hold publishers back, with the nodes that have them.

    All nodes that the asked one has a link to are there. While a node is low on memory or disk,
    the publishers of all nodes wait; those of a node without a majority wait at that node alone.

    \b
    Examples:
      leveret ctl alarms
      leveret ctl alarms --json
    """  # noqa: D301 - click's mark for lines that are kept as they are
    target.show(rows_of(target.ask("alarms", list[AlarmSeen])), ("node", "reason"))


@click.command("set_vm_memory_high_watermark")
@click.argument("watermark", nargs=-1, required=True, metavar="FRACTION | absolute SIZE")
@asks
def set_vm_memory_high_watermark(*, target: Target, watermark: tuple[str, ...]) -> None:
    """Have publishers wait while the node's memory is above FRACTION of what there is, or SIZE.

    It holds at once, for the one node that is asked, and until that stops; the setting
    node.memory_watermark is what it starts with. 0 holds publishers back for as long as it holds.

    \b
    Examples:
      leveret ctl set_vm_memory_high_watermark 0.4
      leveret ctl set_vm_memory_high_watermark absolute 2GiB --node node-2
    """  # noqa: D301
    reply = target.ask("set_vm_memory_high_watermark", MemoryLimit, watermark=_given(watermark))
    limit_bytes = reply.memory_limit_bytes
    target.say(
        reply,
        f"{reply.node} holds publishers back above {bytes_text(limit_bytes)} of memory"
        if limit_bytes is not None
        else f"{reply.node} cannot tell how much memory there is: nothing is held back",
    )


def _given(words: tuple[str, ...]) -> str:
    """Return the watermark in the form of the setting.

    Raises:
        click.BadParameter: it is none.
    """
    match words:
        case ("absolute", text):
            is_absolute = True
        case (text,):
            is_absolute = False
        case _:
            raise click.BadParameter("give a fraction such as 0.4, or: absolute 2GiB")
    try:
        watermark = WATERMARK.parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if (watermark.fraction is None) != is_absolute:
        raise click.BadParameter("give a fraction from 0 to 1, or: absolute and a size above 1")
    return text


VERBS = (alarms, set_vm_memory_high_watermark)
