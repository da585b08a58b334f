"""`export_definitions` and `import_definitions`: the metadata as JSON."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec

from leveret.catalog.commands import Bind
from leveret.node.definitions import Definitions, DefinitionsError, Start
from leveret.node.exporting import exported, exported_of
from leveret.node.plain_tables import plain_arguments
from leveret.node.version import version

from .changes import change_all, fresh, no_vhost
from .controls import Arguments, ControlError, Controls

if TYPE_CHECKING:
    from leveret.catalog.model import Model
    from leveret.node.definitions import DefinitionCommand

    from .parts import NodeParts


class ExportArguments(Arguments, frozen=True):
    """vhost: None for the whole cluster."""

    vhost: str | None = None


class ImportArguments(Arguments, frozen=True):
    """A part of a file of definitions: as much as a request holds and is done in its time."""

    definitions: Definitions


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """How many definitions made something, changed it, or found it there; and what was refused."""

    created: int
    changed: int
    exists: int
    refused: list[str]


def add_definition_verbs(controls: Controls, parts: NodeParts) -> None:
    """Put the verbs into the table."""
    controls.add("export_definitions", ExportArguments, partial(_export, parts))
    controls.add("import_definitions", ImportArguments, partial(_import, parts))


async def _export(parts: NodeParts, arguments: ExportArguments) -> dict[str, object]:
    model = await fresh(parts)
    versions = {"rabbitmq_version": parts.config.amqp.server_version, "version": version()}
    if arguments.vhost is None:
        return exported(model, **versions)
    if model.vhost(arguments.vhost) is None:
        raise no_vhost(arguments.vhost)
    return exported_of(model, arguments.vhost, **versions)


async def _import(parts: NodeParts, arguments: ImportArguments) -> Imported:
    definitions = arguments.definitions
    start = Start(parts.identity.node, parts.identity.boot)
    try:
        commands = await parts.in_thread(partial(definitions.commands, start))
    except DefinitionsError as error:
        raise ControlError("refused", str(error)) from None
    model = await fresh(parts)
    pairs = [
        (definition, command)
        for definition, command in zip(definitions, commands, strict=True)
        if not _is_bound(model, command)
    ]
    replies = await change_all(parts, [command for _, command in pairs])
    outcomes = [reply.outcome for reply in replies if not isinstance(reply, ControlError)]
    return Imported(
        created=outcomes.count("created"),
        changed=outcomes.count("changed"),
        exists=outcomes.count("exists") + len(commands) - len(pairs),
        refused=[
            f"{definition.title}: {reply}"
            for (definition, _), reply in zip(pairs, replies, strict=True)
            if isinstance(reply, ControlError)
        ],
    )


def _is_bound(model: Model, command: DefinitionCommand) -> bool:
    """Whether there is such a binding, whatever the wire types of its arguments: JSON has none."""
    return isinstance(command, Bind) and any(
        (other.source, other.routing_key) == (command.source, command.routing_key)
        and plain_arguments(other.arguments) == plain_arguments(command.arguments)
        for other in model.bindings_to(command.vhost, command.kind, command.destination)
    )
