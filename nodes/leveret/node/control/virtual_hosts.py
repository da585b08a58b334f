"""Virtual hosts: name spaces of exchanges, queues and permissions."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec

from leveret.catalog.commands import AddVirtualHost, DeleteVirtualHost

from .changes import Outcome, change, fresh, no_vhost
from .controls import ControlError, Controls, NoArguments
from .users import VirtualHostArguments

if TYPE_CHECKING:
    from .parts import NodeParts


class VirtualHostSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A virtual host, with how much is in it."""

    name: str
    exchanges: int
    queues: int


def add_virtual_host_verbs(controls: Controls, parts: NodeParts) -> None:
    """Put the verbs into the table."""
    controls.add("add_vhost", VirtualHostArguments, partial(_add_vhost, parts))
    controls.add("delete_vhost", VirtualHostArguments, partial(_delete_vhost, parts))
    controls.add("list_vhosts", NoArguments, partial(_list_vhosts, parts))


async def _add_vhost(parts: NodeParts, arguments: VirtualHostArguments) -> Outcome:
    if not arguments.vhost:
        raise ControlError("refused", "a virtual host needs a name")
    done = await change(parts, AddVirtualHost(arguments.vhost))
    return Outcome(outcome="exists" if done.outcome == "exists" else "created")


async def _delete_vhost(parts: NodeParts, arguments: VirtualHostArguments) -> Outcome:
    done = await change(parts, DeleteVirtualHost(arguments.vhost))
    if done.outcome == "absent":
        raise no_vhost(arguments.vhost)
    return Outcome(outcome="deleted")


async def _list_vhosts(parts: NodeParts, _: NoArguments) -> list[VirtualHostSeen]:
    model = await fresh(parts)
    return sorted(
        (
            VirtualHostSeen(
                name=vhost.name,
                exchanges=len(model.exchanges(vhost.name)),
                queues=len(model.queues(vhost.name)),
            )
            for vhost in model.vhosts()
        ),
        key=lambda seen: seen.name,
    )
