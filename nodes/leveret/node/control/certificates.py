"""The certificates of the client listeners, read again on request."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from .changes import Outcome
from .controls import ControlError, Controls, NoArguments

if TYPE_CHECKING:
    from .parts import NodeParts


def add_certificate_verbs(controls: Controls, parts: NodeParts) -> None:
    """Put the verbs into the table."""
    controls.add("reload_certificates", NoArguments, partial(_reload, parts))


async def _reload(parts: NodeParts, _: NoArguments) -> Outcome:
    if parts.certificates is None:
        raise ControlError(
            "refused",
            "this node listens to no clients with TLS",
            remedy="see the setting amqp.tls_listen",
        )
    try:
        parts.certificates.reload()
    except OSError as error:
        raise ControlError(
            "refused",
            f"the certificates cannot be used, and the former ones stay in force: {error}",
            remedy="see the settings amqp.tls_certificate, amqp.tls_key and amqp.tls_ca",
        ) from None
    return Outcome(outcome="changed")
