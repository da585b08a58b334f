"""TLS for clients."""

from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from .config import AmqpSection

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 10.0
"""How often it is looked whether the files are others."""

_VERIFY = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}


def server_context(config: AmqpSection) -> ssl.SSLContext:
    """Return what the TLS listeners show and demand.

    Raises:
        OSError: a file cannot be read, or is not what it should be (ssl.SSLError).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    assert config.tls_certificate is not None, "checked when the configuration was read"
    context.load_cert_chain(config.tls_certificate, config.tls_key)
    if config.tls_ca is not None:
        context.load_verify_locations(config.tls_ca)
    context.verify_mode = _VERIFY[config.tls_verify]
    return context


class ClientCertificates:
    """What new TLS connections are shown; it follows the files, and open connections stay.

    Files that cannot be used change nothing: what was read before stays in force.
    """

    def __init__(self, config: AmqpSection) -> None:
        """Read the files.

        Raises:
            OSError: one cannot be read, or is not what it should be (ssl.SSLError).
        """
        self._config = config
        self._looked_at = self._marks()
        self._context = server_context(config)

    def context(self) -> ssl.SSLContext:
        """Return what the next connection is shown and asked for."""
        return self._context

    def reload(self) -> None:
        """Read the files again.

        Raises:
            OSError: as at first; nothing changes.
        """
        self._looked_at = self._marks()
        self._context = server_context(self._config)
        log.info("certificates of client listeners read again")

    async def follow(self) -> None:
        """Read the files again whenever they are others, until cancelled."""
        while True:
            await trio.sleep(LOOK_EVERY_S)
            # While a certificate and its key are replaced one by one they do not fit: the second
            # change is looked at too.
            if self._marks() != self._looked_at:
                try:
                    self.reload()
                except OSError as error:
                    # A stack would say no more.
                    log.error(  # noqa: TRY400
                        "new certificates cannot be used", extra={"error": str(error)}
                    )

    def _marks(self) -> list[tuple[int, int, int] | None]:
        """Return what differs when a file is another one."""
        marks: list[tuple[int, int, int] | None] = []
        for path in (self._config.tls_certificate, self._config.tls_key, self._config.tls_ca):
            try:
                found = None if path is None else path.stat()
            except OSError:
                found = None
            marks.append(
                None if found is None else (found.st_ino, found.st_mtime_ns, found.st_size)
            )
        return marks
