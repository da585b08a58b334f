"""Virtual hosts: name spaces of exchanges, queues and permissions."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec

from leveret.broker.arguments import QUEUE_TYPES
from leveret.catalog.commands import AddVirtualHost, DeleteVirtualHost, UpdateVirtualHost

from .changes import Outcome, change, fresh, no_vhost
from .controls import Arguments, ControlError, Controls, NoArguments
from .users import VirtualHostArguments

if TYPE_CHECKING:
    from .parts import NodeParts


class MetadataArguments(Arguments, frozen=True):
    """A virtual host and what is told of it; None stays as it is, or as it is for a new one."""

    vhost: str
    description: str | None = None
    tags: list[str] | None = None
    default_queue_type: str | None = None


class VirtualHostSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A virtual host, with how much is in it."""

    name: str
    exchanges: int
    queues: int
    description: str = ""
    tags: list[str] = []
    default_queue_type: str = ""
    tracing: bool = False
    protected_from_deletion: bool = False


def add_virtual_host_verbs(controls: Controls, parts: NodeParts) -> None:
    """Put the verbs into the table."""
    controls.add("add_vhost", MetadataArguments, partial(_add_vhost, parts))
    controls.add("delete_vhost", VirtualHostArguments, partial(_delete_vhost, parts))
    controls.add("list_vhosts", NoArguments, partial(_list_vhosts, parts))
    controls.add("update_vhost_metadata", MetadataArguments, partial(_update, parts))
    for verb, is_protected in (
        ("enable_vhost_deletion_protection", True),
        ("disable_vhost_deletion_protection", False),
    ):
        controls.add(verb, VirtualHostArguments, partial(_protect, parts, is_protected))
    controls.add("trace_on", VirtualHostArguments, partial(_trace, parts, True))
    controls.add("trace_off", VirtualHostArguments, partial(_trace, parts, False))


async def _add_vhost(parts: NodeParts, arguments: MetadataArguments) -> Outcome:
    if not arguments.vhost:
        raise ControlError("refused", "a virtual host needs a name")
    _check_type(arguments.default_queue_type)
    done = await change(
        parts,
        AddVirtualHost(
            arguments.vhost,
            arguments.description or "",
            tuple(dict.fromkeys(arguments.tags or ())),
            arguments.default_queue_type or "",
        ),
    )
    return Outcome(outcome="exists" if done.outcome == "exists" else "created")


async def _update(parts: NodeParts, arguments: MetadataArguments) -> Outcome:
    _check_type(arguments.default_queue_type)
    done = await change(
        parts,
        UpdateVirtualHost(
            arguments.vhost,
            arguments.description,
            None if arguments.tags is None else tuple(dict.fromkeys(arguments.tags)),
            arguments.default_queue_type,
        ),
    )
    return Outcome(outcome="exists" if done.outcome == "exists" else "changed")


async def _protect(
    parts: NodeParts,
    is_protected: bool,  # noqa: FBT001 - it is what the verb's name says
    arguments: VirtualHostArguments,
) -> Outcome:
    done = await change(parts, UpdateVirtualHost(arguments.vhost, is_protected=is_protected))
    return Outcome(outcome="exists" if done.outcome == "exists" else "changed")


async def _trace(
    parts: NodeParts,
    is_traced: bool,  # noqa: FBT001 - it is what the verb's name says
    arguments: VirtualHostArguments,
) -> Outcome:
    done = await change(parts, UpdateVirtualHost(arguments.vhost, is_traced=is_traced))
    return Outcome(outcome="exists" if done.outcome == "exists" else "changed")


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
                description=vhost.description,
                tags=list(vhost.tags),
                default_queue_type=vhost.default_queue_type,
                tracing=vhost.is_traced,
                protected_from_deletion=vhost.is_protected,
            )
            for vhost in model.vhosts()
        ),
        key=lambda seen: seen.name,
    )


def _check_type(queue_type: str | None) -> None:
    """Accept or refuse a type for the queues that are declared without one.

    Raises:
        ControlError: there is no such type.
    """
    if queue_type and queue_type not in QUEUE_TYPES:
        raise ControlError(
            "refused",
            f"unsupported queue type '{queue_type}'",
            remedy=f"there are: {', '.join(sorted(QUEUE_TYPES))}",
        )
