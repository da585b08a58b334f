"""The core is the one that was read line by line, and nothing else of its package runs."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path

import pysyncobj.journal
import pysyncobj.serializer
import pysyncobj.tcp_connection
import pysyncobj.tcp_server
import pytest
from pysyncobj import syncobj

from leveret.consensus import SafetyViolation
from leveret.consensus.journal import CoreJournal
from leveret.consensus.membership import Configuration, Configurations
from tests.consensus.harness import Cluster, three


def test_the_core_is_the_audited_one() -> None:
    source = Path(syncobj.__file__).read_bytes()

    assert "0.3.17" == version("pysyncobj")
    assert hashlib.sha256(source).hexdigest().startswith("e8bdf06797085d73")


def test_no_transport_journal_dump_or_fork_of_its_own_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a part of PySyncObj that must not run")

    for owner, name in (
        (syncobj, "TCPTransport"),
        (syncobj.threading, "Thread"),
        (pysyncobj.journal, "FileJournal"),
        (pysyncobj.journal, "MemoryJournal"),
        (pysyncobj.tcp_connection, "TcpConnection"),
        (pysyncobj.tcp_server, "TcpServer"),
        (pysyncobj.serializer.os, "fork"),
        (pysyncobj.serializer.Serializer, "serialize"),
        (pysyncobj.serializer.Serializer, "getTransmissionData"),
        (pysyncobj.serializer.Serializer, "setTransmissionData"),
    ):
        monkeypatch.setattr(owner, name, refuse)

    cluster = three()
    cluster.propose(1, *[b"%d" % number for number in range(100)])
    cluster.settle()
    for _ in range(100):
        cluster[1].tick(10.0)
        cluster.settle()

    assert 100 == len(cluster[3].payloads)


def test_its_timers_never_begin_an_election() -> None:
    cluster = Cluster()
    cluster.connect(1, 2, 3)

    cluster.now_s += 1e6
    for member in cluster.members.values():
        member.pump()

    assert [0, 0, 0] == [member.engine.term for member in cluster.members.values()]


def test_a_core_that_clears_or_compacts_its_journal_ends_the_process() -> None:
    cluster = three()
    journal = CoreJournal(cluster[1].log, None, Configurations(0, Configuration()))

    with pytest.raises(SafetyViolation):
        journal.clear()
    with pytest.raises(SafetyViolation):
        journal.deleteEntriesTo(1)
    with pytest.raises(SafetyViolation):
        journal.deleteEntriesFrom(0)
