"""A cluster's secrets: token, certificate authority, node certificates. Files and no network.

The token is 32 random bytes that all nodes hold; nothing is derived from passwords. The
authority's key is needed only to admit nodes and should not lie on all of them. A node's
certificate names cluster and number in one URI, `leveret://CLUSTER/node/NUMBER`, which the other
side compares with the hello: a stolen certificate cannot speak for another node.

These files are read at start and written by the command line only, hence not through `Disk`.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import ssl
import stat
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .errors import TransportError
from .identity import NodeId

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

__all__ = ["CertificateAuthority", "ClusterCredentials", "TlsFiles", "certified_node", "new_token"]

TOKEN_BYTES = 32
AUTHORITY_DAYS = 3650
NODE_DAYS = 825
CLOCK_SKEW = timedelta(days=1)
"""Certificates are valid from a day before their making: nodes' clocks differ."""

_CLUSTER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def new_token() -> bytes:
    """Return a fresh cluster token from the system's random source."""
    return secrets.token_bytes(TOKEN_BYTES)


@dataclass(frozen=True)
class TlsFiles:
    """Paths of PEM files: the cluster's authority, this node's certificate and its key."""

    authority: Path
    certificate: Path
    key: Path

    def context(self, *, server_side: bool) -> ssl.SSLContext:
        """Return a context for mutual TLS 1.3 that trusts this cluster's authority only.

        Host names are not compared: the node's number in the certificate is (`certified_node`).

        Raises:
            TransportError: a file is missing, unreadable or does not fit the others.
        """
        purpose = ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT
        context = ssl.SSLContext(purpose)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        try:
            context.load_verify_locations(cafile=self.authority)
            context.load_cert_chain(self.certificate, self.key)
        except OSError as error:  # ssl.SSLError is one
            raise TransportError(
                f"cannot use the certificate {self.certificate} with the key {self.key} and the"
                f" authority {self.authority}: {error}"
            ) from error
        return context


@dataclass(frozen=True)
class ClusterCredentials:
    """What lets one node into one cluster. Without `tls` only loopback addresses are allowed."""

    cluster: str
    token: bytes = field(repr=False)
    tls: TlsFiles | None = None

    def __post_init__(self) -> None:
        _check_cluster_id(self.cluster)
        if len(self.token) < 16:
            raise TransportError("the cluster token has less than 16 bytes; make one by new_token")

    def save(self, folder: Path) -> None:
        """Write cluster id and token into `folder`; the files of `tls` are where they are."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(folder / "cluster", self.cluster.encode() + b"\n")
        write_private(folder / "token", self.token.hex().encode() + b"\n")

    @classmethod
    def load(cls, folder: Path) -> ClusterCredentials:
        """Read `cluster`, `token` and, where there, `ca.pem`, `node.pem` and `node.key`.

        Raises:
            TransportError: a file is missing, malformed, or others than its owner may read a
                secret.
        """
        cluster = _read(folder / "cluster").decode(errors="replace").strip()
        try:
            token = bytes.fromhex(_read_private(folder / "token").decode("ascii"))
        except ValueError as error:
            raise TransportError(f"{folder / 'token'} does not hold hexadecimal digits") from error
        files = TlsFiles(folder / "ca.pem", folder / "node.pem", folder / "node.key")
        there = [p for p in (files.authority, files.certificate, files.key) if p.exists()]
        if there and len(there) < 3:
            raise TransportError(
                f"{folder} needs all of ca.pem, node.pem and node.key for TLS, or none of them"
            )
        if there:
            _read_private(files.key)
        return cls(cluster, token, files if there else None)


@dataclass(frozen=True)
class CertificateAuthority:
    """Signs the certificates of one cluster's nodes (ECDSA P-256, as every TLS library has it)."""

    cluster: str
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def create(cls, cluster: str, *, now: datetime) -> CertificateAuthority:
        """Make a new authority, valid for ten years from `now` (with a time zone)."""
        _check_cluster_id(cluster)
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"Leveret cluster {cluster}"[:64])
        builder = _certificate(name, name, key.public_key(), now=now, days=AUTHORITY_DAYS)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        certificate = (
            builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(identifier, critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(cluster, certificate, key)

    def issue(self, node: NodeId, folder: Path, *, now: datetime) -> TlsFiles:
        """Write `ca.pem`, `node.pem` and `node.key` for one node into `folder`; return the paths.

        The certificate is valid for 825 days from `now` and serves both ends of a link.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        issuer_key = self.key.public_key()
        certificate = (
            _certificate(
                _name(f"Leveret node {node}"),
                self.certificate.subject,
                key.public_key(),
                now=now,
                days=NODE_DAYS,
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage(
                    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
                ),
                critical=False,
            )
            .add_extension(
                x509.SubjectAlternativeName(
                    [x509.UniformResourceIdentifier(f"leveret://{self.cluster}/node/{node}")]
                ),
                critical=False,
            )
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False
            )
            .sign(self.key, hashes.SHA256())
        )
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        files = TlsFiles(folder / "ca.pem", folder / "node.pem", folder / "node.key")
        write_private(files.authority, _pem(self.certificate))
        write_private(files.certificate, _pem(certificate))
        write_private(files.key, _key_pem(key))
        return files

    def save(self, folder: Path) -> None:
        """Write `ca.pem` and `ca.key` into `folder`."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(folder / "ca.pem", _pem(self.certificate))
        write_private(folder / "ca.key", _key_pem(self.key))

    @classmethod
    def load(cls, cluster: str, folder: Path) -> CertificateAuthority:
        """Read what `save` wrote.

        Raises:
            TransportError: a file is missing or malformed, or others may read the key.
        """
        pem, key_pem = _read(folder / "ca.pem"), _read_private(folder / "ca.key")
        try:
            certificate = x509.load_pem_x509_certificate(pem)
            key = serialization.load_pem_private_key(key_pem, password=None)
        except (ValueError, TypeError) as error:
            raise TransportError(
                f"{folder} does not hold a certificate authority: {error}"
            ) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TransportError(f"{folder / 'ca.key'} is not an ECDSA key")
        return cls(cluster, certificate, key)


def certified_node(certificate: Mapping[str, object]) -> tuple[str, NodeId] | None:
    """Return cluster and node that a verified certificate (`getpeercert()`) names, or None."""
    names = certificate.get("subjectAltName", ())
    assert isinstance(names, tuple)
    for kind, value in names:
        if kind == "URI":
            uri = urlsplit(value)
            number = uri.path.removeprefix("/node/")
            if uri.scheme == "leveret" and number.isascii() and number.isdigit():
                return uri.netloc, NodeId(int(number))
    return None


def write_private(path: Path, data: bytes) -> None:
    """Put `data` into `path`, readable by its owner only, whole or not at all.

    Raises:
        OSError: the folder is missing or full; the former file, if any, is still there.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        aside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            aside.unlink()
        raise


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TransportError(f"cannot read {path}: {error.strerror}") from error


def _read_private(path: Path) -> bytes:
    data = _read(path)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise TransportError(f"others may read the secret in {path}; run: chmod 600 {path}")
    return data


def _check_cluster_id(cluster: str) -> None:
    if not _CLUSTER_ID.fullmatch(cluster):
        raise TransportError(
            f"{cluster!r} is no cluster id: it has 1 to 64 letters, digits, '_', '.' and '-' and"
            " begins with a letter or digit"
        )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    *,
    now: datetime,
    days: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
