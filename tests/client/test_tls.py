"""TLS from both faces against a node: trust, names, client certificates."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trustme

from leveret.client import ConnectFailed, connect
from leveret.client.blocking import connect as connect_blocking
from tests.support import nodes

BODY = b"x" * 400_000


class Secured:
    """A node with a TLS listener, and the files of a client that it trusts."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        server = authority.issue_cert("localhost")
        self.authority = folder / "ca.pem"
        self.certificate, self.key = folder / "client.pem", folder / "client-key.pem"
        authority.cert_pem.write_to_path(str(self.authority))
        server.private_key_pem.write_to_path(str(folder / "key.pem"))
        certificate = folder / "certificate.pem"
        for blob in server.cert_chain_pems:
            blob.write_to_path(str(certificate), append=True)
        client = authority.issue_cert("client@example.org")
        client.private_key_pem.write_to_path(str(self.key))
        client.cert_chain_pems[0].write_to_path(str(self.certificate))
        self.port = nodes.free_port()
        self.node = nodes.node(
            folder,
            settings=[
                f"amqp.tls_listen=127.0.0.1:{self.port}",
                f"amqp.tls_certificate={certificate}",
                f"amqp.tls_key={folder / 'key.pem'}",
                f"amqp.tls_ca={self.authority}",
            ],
        )

    def url(self, *parameters: str, host: str = "localhost") -> str:
        return f"amqps://guest:guest@{host}:{self.port}/?{'&'.join(parameters)}"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    made = Secured(tmp_path_factory.mktemp("tls"))
    made.node.start()
    yield made
    made.node.stop()


async def test_messages_go_over_tls(secured: Secured) -> None:
    url = secured.url(f"cacertfile={secured.authority}")
    with trio.fail_after(30):
        async with connect(url) as connection, connection.channel() as channel:
            queue = await channel.declare_queue(exclusive=True)
            async with channel.publisher(queue.name) as publisher:
                for _ in range(20):
                    await publisher.send(BODY)
            async with channel.consume(queue) as deliveries:
                for _ in range(20):
                    message = await anext(deliveries)
                    assert message.body == BODY
                    await message.ack()


def test_messages_go_over_tls_without_trio(secured: Secured) -> None:
    url = secured.url(f"cacertfile={secured.authority}")
    with connect_blocking(url, timeout_s=30) as connection:
        channel = connection.channel()
        queue = channel.declare_queue(exclusive=True)
        with channel.publisher(queue.name) as publisher:
            for _ in range(20):
                publisher.send(BODY)
        with channel.consume(queue) as deliveries:
            for _ in range(20):
                message = next(deliveries)
                assert message.body == BODY
                message.ack()


async def test_a_certificate_of_ones_own_is_shown(secured: Secured) -> None:
    files = [f"cacertfile={secured.authority}", f"certfile={secured.certificate}",
             f"keyfile={secured.key}"]  # fmt: skip
    with trio.fail_after(30):
        async with connect(secured.url(*files)) as connection:
            assert connection.is_connected


async def test_a_context_may_be_given(secured: Secured) -> None:
    context = ssl.create_default_context(cafile=str(secured.authority))
    with trio.fail_after(30):
        async with connect(secured.url(), tls=context) as connection:
            assert connection.is_connected


async def test_an_unknown_authority_is_not_trusted(secured: Secured) -> None:
    with pytest.raises(ConnectFailed, match="certificate verify failed"), trio.fail_after(30):
        async with connect(secured.url()):
            pass
    with pytest.raises(ConnectFailed, match="certificate verify failed"):
        connect_blocking(secured.url())


async def test_a_certificate_for_another_name_is_not_trusted(secured: Secured) -> None:
    url = secured.url(f"cacertfile={secured.authority}", host="127.0.0.1")
    with pytest.raises(ConnectFailed, match="certificate"), trio.fail_after(30):
        async with connect(url):
            pass
    named = secured.url(
        f"cacertfile={secured.authority}",
        "server_name_indication=localhost",
        host="127.0.0.1",
    )
    with trio.fail_after(30):
        async with connect(named) as connection:
            assert connection.is_connected


async def test_plain_words_to_a_tls_port_are_said_to_be_that(secured: Secured) -> None:
    with pytest.raises(ConnectFailed, match=r"want TLS|reset"), trio.fail_after(30):
        async with connect(f"amqp://localhost:{secured.port}/"):
            pass
