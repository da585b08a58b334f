"""A cluster's secrets: token, certificate authority, node certificates. Files and no network.

The token is 32 random bytes that all nodes hold; nothing is derived from passwords. The
authority's key is needed only to admit nodes: those that joined have it, so that every one of
them can admit (decision 0009); where an operator hands out the files, it may lie elsewhere. A
node's certificate names cluster and number in one URI, `leveret://CLUSTER/node/NUMBER`, which the
other side compares with the hello: a stolen certificate cannot speak for another node.

These files are read at a start and written when a node founds or joins, hence not through `Disk`.
"""

from __future__ import annotations

import contextlib
import hashlib
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
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .errors import TransportError
from .identity import NodeId

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

__all__ = [
    "CertificateAuthority",
    "ClusterCredentials",
    "NodeKey",
    "TlsFiles",
    "certified_node",
    "found_cluster",
    "new_token",
    "newcomer_context",
]

TOKEN_BYTES = 32
AUTHORITY_KEY = "ca.key"
AUTHORITY_DAYS = 3650
NODE_DAYS = 825
CLOCK_SKEW = timedelta(days=1)
"""Certificates are valid from a day before their making: nodes' clocks differ."""

CURVE = ec.SECP256R1()
"""P-256, as every TLS library has it."""

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

    @property
    def authority_key(self) -> Path:
        """Where the authority's key is, if this node holds it: `ca.key` beside its certificate."""
        return self.authority.with_name(AUTHORITY_KEY)

    def context(self, *, server_side: bool) -> ssl.SSLContext:
        """Return a context for TLS 1.3 that trusts this cluster's authority only.

        The server's takes a client without a certificate, who can do no more than ask to join
        (`handshake`, `joining`). Host names are not compared: the node's number in the certificate
        is (`certified_node`).

        Raises:
            TransportError: a file is missing, unreadable or does not fit the others.
        """
        purpose = ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT
        context = ssl.SSLContext(purpose)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_OPTIONAL if server_side else ssl.CERT_REQUIRED
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

    def leaf(self) -> bytes:
        """Return this node's certificate (DER) as it is shown to others.

        Raises:
            TransportError: as `context`.
        """
        return self._leaf().public_bytes(serialization.Encoding.DER)

    def ends(self) -> datetime:
        """Return when this node's certificate ends; raises as `leaf`."""
        return self._leaf().not_valid_after_utc

    def _leaf(self) -> x509.Certificate:
        try:
            return x509.load_pem_x509_certificates(_read(self.certificate))[0]
        except ValueError as error:
            raise TransportError(f"{self.certificate} is not a certificate: {error}") from error


def newcomer_context() -> ssl.SSLContext:
    """Return a context for one who has no certificate yet and cannot check the other side's.

    Whoever uses it must have the other side prove itself by other means, bound to the certificate
    that it showed: `binding`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def binding(certificate: bytes | None) -> bytes:
    """Return what ties a proof to the TLS connection whose server shows `certificate` (DER).

    A man in the middle must show another one, for which he has the key; and then proofs differ.
    Without TLS it is 32 zeros.
    """
    return bytes(32) if certificate is None else hashlib.sha256(certificate).digest()


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
        _make_private(folder)
        write_private(folder / "token", self.token.hex().encode() + b"\n")
        write_private(folder / "cluster", self.cluster.encode() + b"\n")

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
    """Signs the certificates of one cluster's nodes (ECDSA)."""

    cluster: str
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def create(cls, cluster: str, *, now: datetime) -> CertificateAuthority:
        """Make a new authority, valid for ten years from `now` (with a time zone)."""
        _check_cluster_id(cluster)
        key = ec.generate_private_key(CURVE)
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

        The certificate is that of `certify`.
        """
        key = NodeKey.create()
        return key.save(
            folder,
            certificate=self.certify(key.public, node, now=now),
            authority=_pem(self.certificate),
        )

    def certify(self, public_key: bytes, node: NodeId, *, now: datetime) -> bytes:
        """Return a certificate (PEM) for a node with this public key (DER).

        It is valid for 825 days from `now` and serves both ends of a link.

        Raises:
            TransportError: as `load_public_key`.
        """
        key = load_public_key(public_key)
        issuer_key = self.key.public_key()
        certificate = (
            _certificate(
                _name(f"Leveret node {node}"),
                self.certificate.subject,
                key,
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
                    [x509.UniformResourceIdentifier(_uri(self.cluster, node))]
                ),
                critical=False,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False
            )
            .sign(self.key, hashes.SHA256())
        )
        return _pem(certificate)

    def pem(self) -> tuple[bytes, bytes]:
        """Return the authority's certificate and key as `ca.pem` and `ca.key` hold them."""
        return _pem(self.certificate), _key_pem(self.key)

    def save(self, folder: Path) -> None:
        """Write `ca.pem` and `ca.key` into `folder`."""
        _make_private(folder)
        write_private(folder / "ca.pem", _pem(self.certificate))
        write_private(folder / AUTHORITY_KEY, _key_pem(self.key))

    @classmethod
    def load(cls, cluster: str, folder: Path) -> CertificateAuthority:
        """Read what `save` wrote.

        Raises:
            TransportError: a file is missing or malformed, or others may read the key.
        """
        return cls.of_files(cluster, folder / "ca.pem", folder / AUTHORITY_KEY)

    @classmethod
    def of_files(cls, cluster: str, certificate: Path, key: Path) -> CertificateAuthority:
        """Read certificate and key from two files; raises as `load`."""
        try:
            return cls.parse(cluster, _read(certificate), _read_private(key))
        except ValueError as error:
            raise TransportError(
                f"{certificate} and {key} are not a certificate authority: {error}"
            ) from error

    @classmethod
    def parse(cls, cluster: str, certificate_pem: bytes, key_pem: bytes) -> CertificateAuthority:
        """Return what `pem` gave.

        Raises:
            ValueError: one is malformed, or they do not belong together.
        """
        try:
            certificate = x509.load_pem_x509_certificate(certificate_pem)
            key = serialization.load_pem_private_key(key_pem, password=None)
        except (TypeError, UnsupportedAlgorithm) as error:
            raise ValueError(str(error)) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("the key is not an ECDSA key")  # noqa: TRY004 - it is the bytes' fault
        if key.public_key() != certificate.public_key():
            raise ValueError("the key is not that of the certificate")
        return cls(cluster, certificate, key)


@dataclass(frozen=True)
class NodeKey:
    """A node's own key, which never leaves it."""

    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def create(cls) -> NodeKey:
        """Make a new one."""
        return cls(ec.generate_private_key(CURVE))

    @property
    def public(self) -> bytes:
        """The public half (DER), to be certified."""
        return self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def check(self, certificate: bytes, *, authority: bytes, cluster: str, node: NodeId) -> None:
        """Check that a certificate (PEM) is this key's, for that node, by that authority (PEM).

        Raises:
            ValueError: it is not, or one of both is malformed.
        """
        ours = x509.load_pem_x509_certificate(certificate)
        issuer = x509.load_pem_x509_certificate(authority)
        if ours.public_key() != self.key.public_key():
            raise ValueError("the certificate is for another key")
        try:
            ours.verify_directly_issued_by(issuer)
            names = ours.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (TypeError, InvalidSignature, x509.ExtensionNotFound) as error:
            raise ValueError("the certificate is not of the cluster's authority") from error
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        if uris != [_uri(cluster, node)]:
            raise ValueError("the certificate is for another node")

    def save(self, folder: Path, *, certificate: bytes, authority: bytes) -> TlsFiles:
        """Write `ca.pem`, `node.pem` and `node.key` into `folder`; return the paths."""
        _make_private(folder)
        files = TlsFiles(folder / "ca.pem", folder / "node.pem", folder / "node.key")
        write_private(files.authority, authority)
        write_private(files.certificate, certificate)
        write_private(files.key, _key_pem(self.key))
        return files


def found_cluster(
    cluster: str, node: NodeId, folder: Path, *, needs_tls: bool, token: bytes, now: datetime
) -> ClusterCredentials:
    """Make the credentials of a cluster's first node in `folder`, where `load` reads them later.

    With `needs_tls` these are an authority, valid for ten years from `now` (with a time zone), and
    the node's certificate. The file `cluster` comes last: without it the folder counts as empty,
    and a start that was cut short begins again.
    """
    tls = None
    if needs_tls:
        authority = CertificateAuthority.create(cluster, now=now)
        authority.save(folder)
        tls = authority.issue(node, folder, now=now)
    credentials = ClusterCredentials(cluster, token, tls)
    credentials.save(folder)
    return credentials


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
    """Put `data` into `path`, readable by its owner only, whole or not at all; it survives a crash.

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
        _sync(path.parent)
    except OSError:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            aside.unlink()
        raise


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _sync(folder.parent)


def _sync(folder: Path) -> None:
    """Let the names in `folder` survive a crash of the machine."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load_public_key(der: bytes) -> ec.EllipticCurvePublicKey:
    """Return a node's public key.

    Raises:
        TransportError: that is no public key, or not of the kind used here.
    """
    try:
        key = serialization.load_der_public_key(der)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise TransportError("the public key is malformed") from error
    if not (isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == CURVE.name):
        raise TransportError(f"the public key is not one of {CURVE.name}")
    return key


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


def is_cluster_id(text: str) -> bool:
    """Tell whether `text` can name a cluster: files, certificates and logs have it as it is."""
    return _CLUSTER_ID.fullmatch(text) is not None


def _check_cluster_id(cluster: str) -> None:
    if not is_cluster_id(cluster):
        raise TransportError(
            f"{cluster!r} is no cluster id: it has 1 to 64 letters, digits, '_', '.' and '-' and"
            " begins with a letter or digit"
        )


def _uri(cluster: str, node: NodeId) -> str:
    return f"leveret://{cluster}/node/{node}"


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
