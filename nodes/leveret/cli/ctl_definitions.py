"""`leveret ctl`: definitions, out to a file and in from one."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from leveret.cli.ctl_target import asks
from leveret.cli.exits import BadConfiguration, NotDone
from leveret.node.control.definitions import Imported
from leveret.node.definitions import (
    Definitions,
    DefinitionsError,
    Start,
    decode_definitions,
    placed_in,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from leveret.cli.ctl_target import Target
    from leveret.node.definitions import Definition

BATCH_MAX: Final = 50
"""Definitions a request: as many passwords are hashed, and changes replicated, well in its time."""
BATCH_BYTES_MAX: Final = 32 * 1024
"""Of definitions a request: half of what a node takes."""


ONE_VHOST: Final = click.option(
    "-p", "--vhost", metavar="VHOST", help="One virtual host alone, whose name is not in the file."
)


@click.command("export_definitions")
@click.argument("file")
@ONE_VHOST
@asks
def export_definitions(*, target: Target, file: str, vhost: str | None) -> None:
    """Write users, virtual hosts, permissions, policies and all that is declared to FILE, as JSON.

    The format is RabbitMQ's. Passwords are in it as hashes, so nobody else may read the file.
    A FILE that is - is the standard output. Messages and exclusive queues are not in it.

    \b
    Examples:
      leveret ctl export_definitions definitions.json
      leveret ctl export_definitions - | jq .queues
      leveret ctl export_definitions --vhost shop shop.json
    """  # noqa: D301 - click's mark for lines that are kept as they are
    definitions = target.ask("export_definitions", dict[str, Any], vhost=vhost)
    octets = msgspec.json.format(msgspec.json.encode(definitions), indent=2) + b"\n"
    if file == "-":
        click.echo(octets, nl=False)
        return
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(octets)
    except OSError as error:
        raise BadConfiguration(f"{file} cannot be written: {error.strerror}") from None
    counts = {part: len(of_it) for part, of_it in definitions.items() if isinstance(of_it, list)}
    text = ", ".join(f"{count} {part}" for part, count in counts.items())
    target.say(counts, f"{file}: {text}")


@click.command("import_definitions")
@click.argument("file", default="-")
@ONE_VHOST
@asks
def import_definitions(*, target: Target, file: str, vhost: str | None) -> None:
    """Have what FILE defines be there: an export of ours, or of RabbitMQ.

    What is there stays; users, permissions and policies that the file names are replaced, the rest
    is created if it is missing. The file is checked before anything changes. What this version does
    not have is named and left out. Without FILE, or if it is -, the standard input is read.

    \b
    Examples:
      leveret ctl import_definitions definitions.json
      rabbitmqctl export_definitions - | leveret ctl import_definitions
      leveret ctl import_definitions --vhost shop2 shop.json
    """  # noqa: D301
    try:
        octets = _read(file)
        if vhost is not None:
            octets = placed_in(vhost, octets, file)
        definitions, left_out = decode_definitions(octets, file)
        # The node hashes passwords; here they are only to be told apart from what is wrong.
        _without_passwords(definitions).commands(Start(node=1, boot=1))
    except DefinitionsError as error:
        raise BadConfiguration(f"{error}; nothing was changed") from None
    for what in left_out:
        click.echo(f"leveret: left out: {what}", err=True)
    told = [
        target.ask("import_definitions", Imported, definitions=batch)
        for batch in _batches(definitions)
    ]
    total = Imported(
        created=sum(one.created for one in told),
        changed=sum(one.changed for one in told),
        exists=sum(one.exists for one in told),
        refused=[refused for one in told for refused in one.refused],
    )
    target.say(
        total, f"{total.created} created, {total.changed} changed, {total.exists} there already"
    )
    for refused in total.refused:
        click.echo(f"leveret: refused: {refused}", err=True)
    if total.refused:
        raise NotDone(
            f"{len(total.refused)} definitions were refused; correct the file and import it again:"
            " what is there stays"
        )


VERBS = (export_definitions, import_definitions)


def _read(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        with open(file, "rb") as opened:  # noqa: PTH123 - as the shell gave it
            return opened.read()
    except OSError as error:
        raise BadConfiguration(f"{file} cannot be read: {error.strerror}") from None


def _without_passwords(definitions: Definitions) -> Definitions:
    users = [msgspec.structs.replace(user, password=None) for user in definitions.users]
    return msgspec.structs.replace(definitions, users=users)


def _batches(definitions: Definitions) -> Iterator[dict[str, list[Definition]]]:
    """Cut definitions into requests, in the order in which they need each other."""
    for part in Definitions.__struct_fields__:
        batch: list[Definition] = []
        size_bytes = 0
        for definition in getattr(definitions, part):
            own_bytes = len(msgspec.json.encode(definition))
            if batch and (len(batch) == BATCH_MAX or size_bytes + own_bytes > BATCH_BYTES_MAX):
                yield {part: batch}
                batch, size_bytes = [], 0
            batch.append(definition)
            size_bytes += own_bytes
        if batch:
            yield {part: batch}
