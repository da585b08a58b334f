"""TLS for clients."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .config import AmqpSection

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
