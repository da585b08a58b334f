"""Questions to all nodes at once: what each tells, and who did not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec
import trio

from leveret.transport import NodeId

from .controls import ControlError

if TYPE_CHECKING:
    from .admin import Admin
    from .parts import NodeParts

T = TypeVar("T")


class Listed(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """What the nodes told together; `silent` are the names of those that did not."""

    rows: list[T]
    silent: list[str]


async def ask_each(
    parts: NodeParts, admin: Admin, do: str, kind: type[T], *, within_s: float, **arguments: object
) -> tuple[dict[int, T], list[str]]:
    """Ask all nodes of the cluster; return the answers, and the names of those without one."""
    told: dict[int, T] = {}

    async def ask(node: NodeId) -> None:
        try:
            told[node] = await admin.ask(node, do, kind, within_s=within_s, **arguments)
        except ControlError:
            return

    async with trio.open_nursery() as nursery:
        for node in (admin.node, *admin.others):
            nursery.start_soon(ask, node)
    members = sorted(parts.catalog.model.nodes(), key=lambda node: node.id)
    return told, [node.name for node in members if node.id not in told]
