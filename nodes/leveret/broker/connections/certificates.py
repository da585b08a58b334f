"""The user whom a client's certificate names, as RabbitMQ reads it. Pure.

The distinguished name is text after RFC 4514, with RabbitMQ's labels, and its escapes for all that
is not printable ASCII: it is what operators have in their lists of users.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from cryptography import x509
from cryptography.x509.oid import NameOID

from leveret.broker.access import LoginRefused

if TYPE_CHECKING:
    from cryptography.x509 import Name, NameAttribute, ObjectIdentifier

DISTINGUISHED_NAME: Final = "distinguished_name"
COMMON_NAME: Final = "common_name"
SUBJECT_ALTERNATIVE_NAME: Final = "subject_alternative_name"
LOGIN_FROM: Final = (DISTINGUISHED_NAME, COMMON_NAME, SUBJECT_ALTERNATIVE_NAME)
"""Where the name of the user may be."""

_SAN_TYPES: Final[
    dict[str, type[x509.DNSName | x509.RFC822Name | x509.UniformResourceIdentifier]]
] = {
    "dns": x509.DNSName,
    "email": x509.RFC822Name,
    "uri": x509.UniformResourceIdentifier,
}
SAN_TYPES: Final = tuple(_SAN_TYPES)
"""Kinds of alternative names that may name the user."""


class LoginFrom(NamedTuple):
    """Which part of a certificate names the user.

    source: one of `LOGIN_FROM`. san_type: one of `SAN_TYPES`; san_index: which of that type, from
    0 on; both for alternative names only.
    """

    source: str = DISTINGUISHED_NAME
    san_type: str = "dns"
    san_index: int = 0


BY_DISTINGUISHED_NAME: Final = LoginFrom()

_LABELS: Final[dict[ObjectIdentifier, str]] = {
    NameOID.SURNAME: "SN",
    NameOID.GIVEN_NAME: "GIVENNAME",
    NameOID.INITIALS: "INITIALS",
    NameOID.GENERATION_QUALIFIER: "GENERATIONQUALIFIER",
    NameOID.COMMON_NAME: "CN",
    NameOID.LOCALITY_NAME: "L",
    NameOID.STATE_OR_PROVINCE_NAME: "ST",
    NameOID.ORGANIZATION_NAME: "O",
    NameOID.ORGANIZATIONAL_UNIT_NAME: "OU",
    NameOID.TITLE: "TITLE",
    NameOID.COUNTRY_NAME: "C",
    NameOID.SERIAL_NUMBER: "SERIALNUMBER",
    NameOID.PSEUDONYM: "PSEUDONYM",
    NameOID.DOMAIN_COMPONENT: "DC",
    NameOID.EMAIL_ADDRESS: "EMAILADDRESS",
    NameOID.USER_ID: "UID",
}
"""What RabbitMQ has a label for; all else is called by its number."""

_SPECIAL: Final = frozenset('"+,;<>\\')


def user_of(certificate: bytes | None, login_from: LoginFrom) -> str:
    """Return the name of the user in a certificate that was verified.

    certificate: in DER form; None if the client showed none.

    Raises:
        LoginRefused: there is no certificate, or no such name in it; the text is for the log.
    """
    if certificate is None:
        raise LoginRefused("connection peer presented no TLS (x.509) certificate")
    try:
        found = x509.load_der_x509_certificate(certificate)
        if login_from.source == SUBJECT_ALTERNATIVE_NAME:
            return _alternative_name(found, login_from)
        subject = found.subject
    except ValueError as error:
        raise LoginRefused(f"the client's certificate cannot be read: {error}") from None
    if login_from.source == DISTINGUISHED_NAME:
        return distinguished_name(subject)
    names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if not names:
        raise LoginRefused("no name found")
    return ",".join(str(name.value) for name in names)


def _alternative_name(certificate: x509.Certificate, login_from: LoginFrom) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        of_type = names.get_values_for_type(_SAN_TYPES[login_from.san_type])
        return str(of_type[login_from.san_index])
    except (x509.ExtensionNotFound, IndexError):
        raise LoginRefused("no name found") from None


def distinguished_name(subject: Name) -> str:
    """Return a name as text, the most specific part first: `CN=ann,OU=field,O=Hares`."""
    parts = ["+".join(map(_attribute, part)) for part in subject.rdns]
    return ",".join(reversed(parts))


def _attribute(attribute: NameAttribute[str | bytes]) -> str:
    label = _LABELS.get(attribute.oid, attribute.oid.dotted_string)
    return f"{label}={_escaped(attribute.value)}"


def _escaped(value: str | bytes) -> str:
    octets = value.encode() if isinstance(value, str) else value
    parts = []
    for position, octet in enumerate(octets):
        character = chr(octet)
        is_first, is_last = position == 0, position == len(octets) - 1
        if not 32 <= octet < 126:
            parts.append(f"\\{octet:02X}")
        elif (
            character in _SPECIAL
            or (is_first and character in " #")
            or (is_last and character == " ")
        ):
            parts.append(f"\\{character}")
        else:
            parts.append(character)
    return "".join(parts)
