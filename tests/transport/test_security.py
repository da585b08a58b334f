from __future__ import annotations

import ssl
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from leveret.transport import (
    CertificateAuthority,
    ClusterCredentials,
    TlsFiles,
    TransportError,
    found_cluster,
    new_token,
)
from leveret.transport.security import NodeKey, certified_node, newcomer_context

from .support import ONE, TWO

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_tokens_are_32_bytes_and_never_the_same() -> None:
    assert 32 == len(new_token())
    assert new_token() != new_token()


def test_credentials_come_back_from_their_folder(tmp_path: Path) -> None:
    folder = tmp_path / "node"
    tls = CertificateAuthority.create("hares", now=NOW).issue(ONE, folder, now=NOW)
    credentials = ClusterCredentials("hares", new_token(), tls)

    credentials.save(folder)

    assert credentials == ClusterCredentials.load(folder)
    assert ["ca.pem", "cluster", "node.key", "node.pem", "token"] == sorted(
        path.name for path in folder.iterdir()
    )
    assert {0o600} == {mode(path) for path in folder.iterdir()}


def test_without_certificates_there_is_no_tls(tmp_path: Path) -> None:
    ClusterCredentials("hares", new_token()).save(tmp_path)

    assert ClusterCredentials.load(tmp_path).tls is None


@pytest.mark.parametrize("name", ["token", "node.key"])
def test_a_secret_that_others_may_read_is_refused(tmp_path: Path, name: str) -> None:
    CertificateAuthority.create("hares", now=NOW).issue(ONE, tmp_path, now=NOW)
    ClusterCredentials("hares", new_token()).save(tmp_path)
    (tmp_path / name).chmod(0o640)

    with pytest.raises(TransportError, match=rf"chmod 600 .*/{name}"):
        ClusterCredentials.load(tmp_path)


def test_missing_and_malformed_files_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(TransportError, match=r"cannot read .*/cluster: No such file"):
        ClusterCredentials.load(tmp_path)
    ClusterCredentials("hares", new_token()).save(tmp_path)
    (tmp_path / "node.pem").write_text("half")
    with pytest.raises(TransportError, match=r"needs all of ca\.pem, node\.pem and node\.key"):
        ClusterCredentials.load(tmp_path)
    (tmp_path / "token").write_text("no digits")
    with pytest.raises(TransportError, match="hexadecimal"):
        ClusterCredentials.load(tmp_path)


def test_a_weak_token_and_a_strange_cluster_id_are_refused() -> None:
    with pytest.raises(TransportError, match="less than 16 bytes"):
        ClusterCredentials("hares", b"secret")
    with pytest.raises(TransportError, match="no cluster id"):
        ClusterCredentials("hares/../x", new_token())


def test_the_token_is_not_in_the_repr() -> None:
    token = new_token()

    assert repr(token) not in repr(ClusterCredentials("hares", token))


def test_an_authority_comes_back_from_its_folder_and_signs_on(tmp_path: Path) -> None:
    CertificateAuthority.create("hares", now=NOW).save(tmp_path / "ca")
    authority = CertificateAuthority.load("hares", tmp_path / "ca")

    files = authority.issue(TWO, tmp_path / "2", now=NOW)

    assert {0o600} == {mode(p) for p in (files.key, tmp_path / "ca" / "ca.key")}
    issued = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    issued.verify_directly_issued_by(authority.certificate)
    names = issued.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert ["leveret://hares/node/2"] == names.get_values_for_type(x509.UniformResourceIdentifier)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("leveret://hares/node/2", ("hares", 2)),
        ("https://hares/node/2", None),
        ("leveret://hares/node/two", None),
        ("leveret://hares/x/node/2", None),
        ("leveret://hares", None),
    ],
)
def test_a_certificate_names_cluster_and_node(uri: str, expected: object) -> None:
    assert expected == certified_node({"subjectAltName": (("DNS", "x"), ("URI", uri))})


def test_certificates_that_do_not_fit_their_key_are_a_clear_error(tmp_path: Path) -> None:
    authority = CertificateAuthority.create("hares", now=NOW)
    one = authority.issue(ONE, tmp_path / "1", now=NOW)
    two = authority.issue(TWO, tmp_path / "2", now=NOW)

    with pytest.raises(TransportError, match="cannot use the certificate"):
        TlsFiles(one.authority, one.certificate, two.key).context(server_side=True)


def test_contexts_are_of_tls_1_3_and_only_a_newcomer_checks_nothing(tmp_path: Path) -> None:
    files = CertificateAuthority.create("hares", now=NOW).issue(ONE, tmp_path, now=NOW)

    modes = [
        (context.verify_mode, context.minimum_version)
        for context in (
            files.context(server_side=True),
            files.context(server_side=False),
            newcomer_context(),
        )
    ]

    assert [
        (ssl.CERT_OPTIONAL, ssl.TLSVersion.TLSv1_3),
        (ssl.CERT_REQUIRED, ssl.TLSVersion.TLSv1_3),
        (ssl.CERT_NONE, ssl.TLSVersion.TLSv1_3),
    ] == modes


def test_the_first_node_has_all_that_it_takes_to_admit_others(tmp_path: Path) -> None:
    token = new_token()

    credentials = found_cluster(
        "hares", ONE, tmp_path / "tls", needs_tls=True, token=token, now=NOW
    )

    assert credentials == ClusterCredentials.load(tmp_path / "tls")
    assert ClusterCredentials("hares", token, credentials.tls) == credentials
    assert credentials.tls is not None
    assert credentials.tls.authority_key.exists()
    assert {0o600} == {mode(path) for path in (tmp_path / "tls").iterdir()}
    credentials.tls.context(server_side=True)


def test_the_first_node_on_loopback_has_a_token_only(tmp_path: Path) -> None:
    found_cluster("hares", ONE, tmp_path, needs_tls=False, token=new_token(), now=NOW)

    assert ["cluster", "token"] == sorted(path.name for path in tmp_path.iterdir())
    assert ClusterCredentials.load(tmp_path).tls is None


def test_a_certificate_is_checked_by_whose_key_it_is_for(tmp_path: Path) -> None:
    authority, other = (CertificateAuthority.create("hares", now=NOW) for _ in range(2))
    key = NodeKey.create()
    pem, _ = authority.pem()
    certificate = authority.certify(key.public, TWO, now=NOW)

    key.check(certificate, authority=pem, cluster="hares", node=TWO)
    for wrong, reason in (
        ({"node": ONE}, "another node"),
        ({"cluster": "rabbits"}, "another node"),
        ({"authority": other.pem()[0]}, "not of the cluster's authority"),
        ({"authority": b"garbage"}, "."),
    ):
        given = {"authority": pem, "cluster": "hares", "node": TWO} | wrong
        with pytest.raises(ValueError, match=reason):
            key.check(certificate, **given)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="another key"):
        NodeKey.create().check(certificate, authority=pem, cluster="hares", node=TWO)


@pytest.mark.parametrize("der", [b"", b"garbage", bytes(91)])
def test_what_is_no_public_key_is_not_certified(der: bytes) -> None:
    with pytest.raises(TransportError, match="public key is malformed"):
        CertificateAuthority.create("hares", now=NOW).certify(der, TWO, now=NOW)


def test_an_authority_and_a_key_that_do_not_belong_together_are_a_clear_error(
    tmp_path: Path,
) -> None:
    CertificateAuthority.create("hares", now=NOW).save(tmp_path / "1")
    CertificateAuthority.create("hares", now=NOW).save(tmp_path / "2")

    with pytest.raises(TransportError, match="the key is not that of the certificate"):
        CertificateAuthority.of_files("hares", tmp_path / "1/ca.pem", tmp_path / "2/ca.key")
