"""`leveret ctl`: the certificates of the client listeners."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from leveret.cli.ctl_target import asks
from leveret.node.control.changes import Outcome

if TYPE_CHECKING:
    from leveret.cli.ctl_target import Target


@click.command("reload_certificates")
@asks
def reload_certificates(*, target: Target) -> None:
    """Have the node read the certificate, key and authorities of its client listeners again.

    It does so by itself within seconds of a change of the files. Open connections stay; the next
    ones get what is new. Files that cannot be used are refused, and change nothing.

    \b
    Examples:
      leveret ctl reload_certificates --node node-2
    """  # noqa: D301 - click's mark for lines that are kept as they are
    reply = target.ask("reload_certificates", Outcome)
    target.say(reply, "the certificates are read again; the next connections get them")


VERBS = (reload_certificates,)
