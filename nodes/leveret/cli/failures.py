"""Turns what ended a node into a text that says what to do, and an exit code."""

from __future__ import annotations

import errno
import logging
import socket
import ssl
from collections.abc import Iterator

from leveret.catalog.catalog import ChangeRefused
from leveret.cli.exits import (
    BadConfiguration,
    DataUnusable,
    Failure,
    InternalFailure,
    PortUnusable,
)
from leveret.node.config import NodeConfig
from leveret.node.definitions import DefinitionsError
from leveret.node.membership import MembershipError
from leveret.storage.errors import CorruptJournal, CorruptSnapshot, FolderInUse, SyncFailed
from leveret.transport.errors import TransportError
from leveret.transport.identity import Address

log = logging.getLogger("leveret.node")

_PORT_ERRORS = {
    errno.EADDRINUSE: "address already in use: {0}; another node or RabbitMQ? {1}",
    errno.EADDRNOTAVAIL: "no address of this machine: {0}; {1}",
    errno.EACCES: "not allowed to listen on {0}: ports below 1024 need privileges; {1}",
}


def failure_of(error: BaseException, config: NodeConfig) -> Failure:
    """Return why a node ended, from an error or a group of errors; logs what is unexpected."""
    for leaf in _leaves(error):
        found = _known(leaf, config)
        if found is not None:
            return found
    log.critical("the node failed", exc_info=error)
    return InternalFailure(
        "internal failure, the stack is in the log above; confirmed messages are safe on disk."
        " Start the node again, and please report this"
    )


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error


def _known(error: BaseException, config: NodeConfig) -> Failure | None:
    """Return the failure that an operator can do something about, or None."""
    system = error if isinstance(error, OSError) else error.__cause__
    if isinstance(system, OSError) and system.errno in _PORT_ERRORS:
        text = _unusable_port(config)
        if text is not None:
            return PortUnusable(text)
    if isinstance(error, FolderInUse):
        return DataUnusable(f"{error}; choose another folder with --data-dir")
    if isinstance(error, CorruptJournal | CorruptSnapshot):
        return DataUnusable(
            f"the data in {config.node.data_dir} is damaged: {error}. Keep the folder. A single"
            " node may go on from a backup. A member of a cluster must not come back empty or"
            " older, for it forgot what it acknowledged: leave it down, the others go on"
        )
    if isinstance(error, SyncFailed):
        return DataUnusable(
            f"the disk of {config.node.data_dir} failed: {error}. Check the disk, then start again"
        )
    if isinstance(error, ssl.SSLError):
        return BadConfiguration(
            f"the TLS files cannot be used together: {error}; see amqp.tls_certificate,"
            " amqp.tls_key and amqp.tls_ca"
        )
    if isinstance(error, OSError) and _is_inside(error, config):
        return DataUnusable(
            f"{error.filename}: {error.strerror}; correct the permissions of the data folder or"
            " choose another one with --data-dir"
        )
    if isinstance(error, TransportError | MembershipError):
        return BadConfiguration(str(error))
    if isinstance(error, DefinitionsError):
        return BadConfiguration(f"node.definitions: {error}; correct the file")
    if isinstance(error, ChangeRefused):
        return BadConfiguration(
            f"node.definitions: {error}; a permission needs its user and its virtual host,"
            " a binding both its ends"
        )
    return None


def _is_inside(error: OSError, config: NodeConfig) -> bool:
    return str(error.filename or "").startswith(str(config.node.data_dir))


def _unusable_port(config: NodeConfig) -> str | None:
    """Return which of our addresses cannot be had, found by trying each; None if all can."""
    remedies = [(address, "try --listen 127.0.0.1:5673") for address in config.amqp.listen]
    remedies += [(address, "change amqp.tls_listen") for address in config.amqp.tls_listen]
    if len(config.node.cluster) > 1:
        remedies.append((config.peers.listen, "change --peer-listen and --cluster"))
    elif config.origin("peers.listen") != "default" or config.node.join is not None:
        remedies.append((config.peers.listen, "change --peer-listen"))
    for address, remedy in remedies:
        number = _try(address)
        if number in _PORT_ERRORS:
            return _PORT_ERRORS[number].format(address, remedy)
    return None


def _try(address: Address) -> int | None:
    """Return the errno of listening on an address for a moment; None if it works."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        socket.create_server(tuple(address), family=family).close()
    except OSError as error:
        return error.errno
    return None
