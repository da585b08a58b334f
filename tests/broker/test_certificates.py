"""The name of the user in a certificate: each expected text is what RabbitMQ 3.10.8 logged."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID, ObjectIdentifier

from leveret.broker.access import LoginRefused
from leveret.broker.connections.certificates import (
    COMMON_NAME,
    SUBJECT_ALTERNATIVE_NAME,
    LoginFrom,
    user_of,
)

Part = list[tuple[ObjectIdentifier, str]]

DN, FROM_CN = LoginFrom(), LoginFrom(COMMON_NAME)
CN, O = NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME  # noqa: E741 - the field's name


def certificate(*parts: Part, names: Sequence[x509.GeneralName] = ()) -> bytes:
    """A certificate with such a subject and alternative names, in DER form."""
    subject = x509.Name(
        x509.RelativeDistinguishedName(x509.NameAttribute(oid, value) for oid, value in part)
        for part in parts
    )
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2027, 1, 1, tzinfo=UTC))
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    made = builder.sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.DER)


def test_a_distinguished_name_has_the_most_specific_part_first() -> None:
    shown = certificate([(O, "Hares")], [(NameOID.ORGANIZATIONAL_UNIT_NAME, "#1")], [(CN, "ann")])

    assert user_of(shown, DN) == "CN=ann,OU=\\#1,O=Hares"


def test_what_is_special_in_a_distinguished_name_is_escaped() -> None:
    shown = certificate(
        [(NameOID.COUNTRY_NAME, "DE")],
        [(O, '#Acme, "Inc" + <x>; \\')],
        [(NameOID.ORGANIZATIONAL_UNIT_NAME, " lead and trail ")],
        [(CN, "Jürgen ~\x01")],
    )

    assert user_of(shown, DN) == (
        r"CN=J\C3\BCrgen \7E\01,OU=\ lead and trail\ "
        r",O=\#Acme\, \"Inc\" \+ \<x\>\; \\,C=DE"
    )


def test_parts_have_the_labels_of_rabbitmq_or_else_numbers() -> None:
    shown = certificate(
        [(NameOID.DOMAIN_COMPONENT, "org")],
        [(NameOID.USER_ID, "u1")],
        [(NameOID.EMAIL_ADDRESS, "a@b.c")],
        [(NameOID.STREET_ADDRESS, "s")],
        [(NameOID.SURNAME, "sn")],
        [(NameOID.GIVEN_NAME, "gn")],
        [(NameOID.TITLE, "t")],
        [(NameOID.SERIAL_NUMBER, "1")],
        [(NameOID.PSEUDONYM, "ps")],
        [(NameOID.DN_QUALIFIER, "dq")],
        [(NameOID.POSTAL_CODE, "12")],
        [(NameOID.INITIALS, "i")],
        [(NameOID.GENERATION_QUALIFIER, "gq")],
        [(NameOID.LOCALITY_NAME, "l")],
        [(NameOID.STATE_OR_PROVINCE_NAME, "st")],
    )

    assert user_of(shown, DN) == (
        "ST=st,L=l,GENERATIONQUALIFIER=gq,INITIALS=i,2.5.4.17=12,2.5.4.46=dq,PSEUDONYM=ps,"
        "SERIALNUMBER=1,TITLE=t,GIVENNAME=gn,SN=sn,2.5.4.9=s,EMAILADDRESS=a@b.c,UID=u1,DC=org"
    )


def test_several_names_are_joined() -> None:
    shown = certificate([(CN, "one"), (O, "two")], [(CN, "three,x")])

    assert user_of(shown, DN) == r"CN=three\,x,CN=one+O=two"
    assert user_of(shown, FROM_CN) == "one,three,x"


def test_a_certificate_without_a_common_name_names_nobody() -> None:
    with pytest.raises(LoginRefused, match="no name found"):
        user_of(certificate([(O, "Hares")]), FROM_CN)


@pytest.mark.parametrize(
    ("san_type", "index", "user"),
    [
        ("dns", 0, "one.example"),
        ("dns", 1, "two.example"),
        ("email", 0, "ann@example.org"),
        ("uri", 0, "spiffe://example.org/ann"),
    ],
)
def test_an_alternative_name_is_found_by_its_kind_and_place(
    san_type: str, index: int, user: str
) -> None:
    shown = certificate(
        [(CN, "ann")],
        names=[
            x509.RFC822Name("ann@example.org"),
            x509.DNSName("one.example"),
            x509.UniformResourceIdentifier("spiffe://example.org/ann"),
            x509.DNSName("two.example"),
        ],
    )

    assert user_of(shown, LoginFrom(SUBJECT_ALTERNATIVE_NAME, san_type, index)) == user


@pytest.mark.parametrize("names", [[], [x509.DNSName("one.example")]])
def test_a_certificate_without_such_an_alternative_name_names_nobody(
    names: list[x509.GeneralName],
) -> None:
    shown = certificate([(CN, "ann")], names=names)

    with pytest.raises(LoginRefused, match="no name found"):
        user_of(shown, LoginFrom(SUBJECT_ALTERNATIVE_NAME, "dns", 1))


def test_no_certificate_and_an_unreadable_one_are_refused() -> None:
    with pytest.raises(LoginRefused, match="presented no TLS"):
        user_of(None, DN)
    with pytest.raises(LoginRefused, match="cannot be read"):
        user_of(b"\x30\x00", DN)
