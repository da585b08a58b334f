"""Certificates of client listeners that are replaced while the node runs."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pika
import pytest
import trustme

from leveret.cli.ask import ask_once
from leveret.cli.exits import NotDone
from leveret.node.control.changes import Outcome
from tests.cluster.test_operating import data_of
from tests.support import nodes

WITHIN_S = 30.0


class Secured:
    """A node that listens with TLS, and the files that it reads."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "server.pem"
        self.port = nodes.free_port()
        self.authority = self.replace()
        self.node = nodes.node(
            folder,
            settings=[
                f"amqp.tls_listen=127.0.0.1:{self.port}",
                f"amqp.tls_certificate={self._file}",
                f"amqp.tls_key={self._file}",
            ],
        )

    def replace(self) -> trustme.CA:
        """Write a certificate of a new authority, which is returned."""
        authority = trustme.CA()
        issued = authority.issue_cert("localhost")
        issued.private_key_and_cert_chain_pem.write_to_path(str(self._file))
        return authority

    def spoil(self) -> None:
        self._file.write_text("no certificate")

    def connect(self, authority: trustme.CA) -> pika.BlockingConnection:
        """Open a connection that trusts this authority alone."""
        options = pika.SSLOptions(_trusting(authority), "localhost")
        return pika.BlockingConnection(
            pika.ConnectionParameters("localhost", self.port, ssl_options=options)
        )

    def is_of(self, authority: trustme.CA) -> bool:
        """Whether the next connection gets a certificate of this authority."""
        with socket.create_connection(("localhost", self.port), timeout=WITHIN_S) as plain:
            try:
                _trusting(authority).wrap_socket(plain, server_hostname="localhost").close()
            except ssl.SSLCertVerificationError:
                return False
        return True


def _trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Secured]:
    made = Secured(tmp_path)
    made.node.start()
    yield made
    made.node.stop()


def test_the_next_connections_get_a_new_certificate_and_open_ones_stay(secured: Secured) -> None:
    channel = secured.connect(secured.authority).channel()
    new = secured.replace()

    assert "changed" == ask_once(data_of(secured.node), "reload_certificates", Outcome).outcome

    assert secured.is_of(new)
    assert not secured.is_of(secured.authority)
    channel.queue_declare("", exclusive=True)
    channel.connection.close()


def test_changed_files_are_read_without_being_asked_for(secured: Secured) -> None:
    new = secured.replace()

    deadline_s = time.monotonic() + WITHIN_S
    while not secured.is_of(new):
        assert time.monotonic() < deadline_s
        time.sleep(0.2)


def test_files_that_cannot_be_used_change_nothing(secured: Secured) -> None:
    secured.spoil()

    with pytest.raises(NotDone, match="the former ones stay in force"):
        ask_once(data_of(secured.node), "reload_certificates", Outcome)

    assert secured.is_of(secured.authority)
