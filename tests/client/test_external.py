"""Log-in by certificate: the mechanism EXTERNAL, from both faces, and what is refused."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
import trustme
from cryptography import x509
from cryptography.x509.oid import NameOID

from leveret.amqp import ClientConnection, Method, Properties, spec
from leveret.amqp.events import MethodReceived
from leveret.client import AuthenticationRefused, connect
from leveret.client.blocking import connect as connect_blocking
from tests.support import nodes

REFUSED = (
    "ACCESS_REFUSED - Login was refused using authentication mechanism EXTERNAL. "
    "For details see the broker logfile."
)


class Certified:
    """A node that asks for certificates, and clients that have one."""

    def __init__(self, folder: Path, verify: str, login_from: str) -> None:
        self._folder = folder
        self._authority = trustme.CA()
        self._ca = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(str(self._ca))
        server = folder / "server.pem"
        self._authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
            str(server)
        )
        self.ann, subject = self._issue("ann")
        self.stranger, _ = self._issue("stranger")
        user = {
            "distinguished_name": subject,
            "common_name": "ann",
            "subject_alternative_name": "ann@example.org",
        }[login_from]
        rights = {"configure": ".*", "write": ".*", "read": ".*"}
        (folder / "definitions.json").write_text(
            json.dumps(
                {
                    "users": [{"name": user, "password_hash": "", "tags": ""}],
                    "permissions": [{"user": user, "vhost": "/", **rights}],
                }
            )
        )
        self.user = user
        self.port = nodes.free_port()
        self.node = nodes.node(
            folder,
            settings=[
                f"amqp.tls_listen=127.0.0.1:{self.port}",
                f"amqp.tls_certificate={server}",
                f"amqp.tls_key={server}",
                f"amqp.tls_ca={self._ca}",
                f"amqp.tls_verify={verify}",
                f"amqp.tls_login_from={login_from}",
                "amqp.tls_login_san_type=email",
                f"node.definitions={folder / 'definitions.json'}",
            ],
        )

    def _issue(self, name: str) -> tuple[Path, str]:
        """Files of a certificate, and its subject as text."""
        path = self._folder / f"{name}.pem"
        issued = self._authority.issue_cert(f"{name}@example.org", common_name=name)
        issued.private_key_and_cert_chain_pem.write_to_path(str(path))
        subject = x509.load_pem_x509_certificate(issued.cert_chain_pems[0].bytes()).subject
        (unit,) = subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
        (organization,) = subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        return path, f"CN={name},OU={unit.value!s},O={organization.value!s}"

    def url(self, certificate: Path | None) -> str:
        url = f"amqps://localhost:{self.port}/?auth_mechanism=external&cacertfile={self._ca}"
        return url if certificate is None else f"{url}&certfile={certificate}&keyfile={certificate}"

    def starts(self, *, certificate: Path | None, mechanism: str, is_told: bool) -> list[Method]:
        """What a bare client hears: the greeting, and the answer to its log-in."""
        context = ssl.create_default_context(cafile=str(self._ca))
        if certificate is not None:
            context.load_cert_chain(certificate)
        with (
            socket.create_connection(("127.0.0.1", self.port), 30) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            own = ClientConnection()
            secured.sendall(own.begin())
            heard = _next(own, secured)
            capabilities = {"capabilities": {"authentication_failure_close": True}}
            start_ok = spec.ConnectionStartOk(
                client_properties=capabilities if is_told else {},  # type: ignore[arg-type]
                mechanism=mechanism,
                response=b"guest",
            )
            secured.sendall(own.send_method(0, start_ok))
            return heard + _next(own, secured)


def _next(own: ClientConnection, secured: ssl.SSLSocket) -> list[Method]:
    while True:
        octets = secured.recv(65_536)
        events = own.receive_data(octets)
        if events or not octets:
            return [event.method for event in events if isinstance(event, MethodReceived)]


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Certified]]:
    """Makes nodes that ask for certificates, each once."""
    made: dict[tuple[str, str], Certified] = {}

    def make(verify: str = "optional", login_from: str = "distinguished_name") -> Certified:
        if (verify, login_from) not in made:
            one = Certified(tmp_path_factory.mktemp("certified"), verify, login_from)
            one.node.start()
            made[verify, login_from] = one
        return made[verify, login_from]

    yield make
    for one in made.values():
        one.node.stop()


@pytest.mark.parametrize(
    "login_from", ["distinguished_name", "common_name", "subject_alternative_name"]
)
async def test_the_certificate_says_who_the_client_is(
    certified: Callable[..., Certified], login_from: str
) -> None:
    broker = certified(login_from=login_from)
    with trio.fail_after(30):
        async with (
            connect(broker.url(broker.ann)) as connection,
            connection.channel() as channel,
        ):
            queue = await channel.declare_queue(exclusive=True)
            # Only a message of the user itself may have its name.
            properties = Properties(user_id=broker.user)
            await channel.publish(b"", queue.name, properties=properties)
            assert await channel.get(queue) is not None


def test_the_certificate_says_who_a_blocking_client_is(
    certified: Callable[..., Certified],
) -> None:
    broker = certified("required")
    with connect_blocking(broker.url(broker.ann), timeout_s=30) as connection:
        assert connection.channel().declare_queue(exclusive=True).message_count == 0


@pytest.mark.parametrize("has_certificate", [True, False])
async def test_a_client_that_nobody_knows_is_refused(
    certified: Callable[..., Certified], has_certificate: bool
) -> None:
    broker = certified()
    url = broker.url(broker.stranger if has_certificate else None)
    with pytest.raises(AuthenticationRefused), trio.fail_after(30):
        async with connect(url):
            pass


def test_external_is_offered_where_certificates_are_asked_for(
    certified: Callable[..., Certified],
) -> None:
    broker = certified()
    start, close = broker.starts(certificate=broker.stranger, mechanism="EXTERNAL", is_told=True)

    assert isinstance(start, spec.ConnectionStart)
    assert start.mechanisms == b"EXTERNAL AMQPLAIN PLAIN"
    assert isinstance(close, spec.ConnectionClose)
    assert (close.reply_code, close.reply_text) == (403, REFUSED)


def test_a_client_that_is_not_to_be_told_finds_the_connection_closed(
    certified: Callable[..., Certified],
) -> None:
    broker = certified()
    answers = broker.starts(certificate=broker.stranger, mechanism="EXTERNAL", is_told=False)

    assert [type(answer) for answer in answers] == [spec.ConnectionStart]


async def test_external_is_not_offered_without_tls(certified: Callable[..., Certified]) -> None:
    (port,) = certified().node.ports
    with pytest.raises(AuthenticationRefused, match="AMQPLAIN PLAIN, not EXTERNAL"):
        async with connect(f"amqp://localhost:{port}/?auth_mechanism=external"):
            pass


async def test_a_password_serves_beside_a_certificate(certified: Callable[..., Certified]) -> None:
    broker = certified()
    url = broker.url(broker.stranger).replace("auth_mechanism=external&", "")
    with trio.fail_after(30):
        async with connect(url) as connection:
            assert connection.is_connected
