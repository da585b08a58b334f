"""Changes of the catalog that an operator asks for, and reading it so that nothing is stale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeVar

import msgspec
import trio

from leveret.catalog import CatalogTimeout
from leveret.catalog.catalog import ChangeRefused
from leveret.catalog.commands import Refusal
from leveret.catalog.model import Entity, Model

from .controls import ControlError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leveret.catalog.commands import Command, Done

    from .parts import NodeParts

CHANGE_WITHIN_S: Final = 5.0
FRESH_WITHIN_S: Final = 5.0

E = TypeVar("E", bound=Entity)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a change did; `exists`: nothing, for it is so already."""

    outcome: Literal["created", "exists", "changed", "deleted"]


async def change(parts: NodeParts, command: Command[E]) -> Done[E]:
    """Carry out a change; when it returns, all nodes in reach have it.

    Raises:
        ControlError: it was refused, or no majority answered in time.
    """
    try:
        done = await parts.catalog.change(command, CHANGE_WITHIN_S)
    except ChangeRefused as error:
        raise _refused(error.refusal) from None
    except CatalogTimeout:
        raise _no_majority() from None
    await parts.catalog.known_everywhere()
    return done


async def change_all(
    parts: NodeParts, commands: Sequence[Command[Entity]]
) -> list[Done[Entity] | ControlError]:
    """Carry out changes in their order; return of each what it did, or why it was refused.

    Raises:
        ControlError: no majority answered all of them in time.
    """
    replies: list[Done[Entity] | Refusal] = []
    answered = trio.Event()

    def done(reply: Done[Entity] | Refusal) -> None:
        replies.append(reply)
        if len(replies) == len(commands):
            answered.set()

    for command in commands:
        parts.catalog.submit(command, done)
    if commands:
        with trio.move_on_after(CHANGE_WITHIN_S):
            await answered.wait()
    if len(replies) < len(commands):
        raise _no_majority()
    await parts.catalog.known_everywhere()
    return [_refused(reply) if isinstance(reply, Refusal) else reply for reply in replies]


async def fresh(parts: NodeParts) -> Model:
    """Return this node's catalog, once it holds all that was changed before the call.

    Raises:
        ControlError: no majority is there to say so.
    """
    try:
        await parts.catalog.barrier(FRESH_WITHIN_S)
    except CatalogTimeout:
        raise ControlError(
            "unavailable",
            f"no majority of the nodes answered within {FRESH_WITHIN_S:g} s, so what this node"
            " knows may be out of date",
            remedy="look at `leveret ctl cluster status`",
        ) from None
    return parts.catalog.model


async def fresh_with(
    parts: NodeParts, *, user: str | None = None, vhost: str | None = None
) -> Model:
    """Return a fresh catalog that has this user and this virtual host; None: none is asked for.

    Raises:
        ControlError: it has not, or no majority is there to say so.
    """
    model = await fresh(parts)
    if user is not None and model.user(user) is None:
        raise no_user(user)
    if vhost is not None and model.vhost(vhost) is None:
        raise no_vhost(vhost)
    return model


def no_user(name: str) -> ControlError:
    """Return the error about a user that is not there."""
    return ControlError(
        "not_found", f'user "{name}" does not exist', remedy="see `leveret ctl list_users`"
    )


def no_vhost(name: str) -> ControlError:
    """Return the error about a virtual host that is not there."""
    return ControlError(
        "not_found", f'virtual host "{name}" does not exist', remedy="see `leveret ctl list_vhosts`"
    )


def _no_majority() -> ControlError:
    return ControlError(
        "timeout",
        f"no majority answered within {CHANGE_WITHIN_S:g} s",
        remedy="it may still happen: look at `leveret ctl cluster status` first",
    )


def _refused(refusal: Refusal) -> ControlError:
    match refusal.kind, refusal.subject:
        case "not_found", "user":
            return no_user(refusal.name)
        case "not_found", "vhost":
            return no_vhost(refusal.name)
        case "not_found", _:
            return ControlError(
                "not_found",
                f'no {refusal.subject} "{refusal.name}" in virtual host "{refusal.vhost}"',
            )
        case "not_allowed", "vhost":
            return ControlError(
                "refused",
                f'virtual host "{refusal.name}" is protected from deletion',
                remedy="see `leveret ctl disable_vhost_deletion_protection`",
            )
        case "limit", "queue":
            return ControlError(
                "refused",
                f'virtual host "{refusal.vhost}" has {refusal.limit} queues, as many as it may',
                remedy="see `leveret ctl set_vhost_limits`",
            )
        case "malformed", _:
            return ControlError("refused", f"it is too long, or no text: {refusal.name}")
    return ControlError("refused", f"{refusal.kind}: {refusal.subject} {refusal.name!r}")
