"""Real processes that join a cluster one by one, leave their first member, and start again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chaos.load import Consumer, Publisher
from chaos.verdict import judge
from tests.cluster.conftest import Cluster
from tests.cluster.test_lost_disks import drain, publish_some
from tests.support.nodes import LeveretProcess, free_port

PublisherMaker = Callable[..., Publisher]
ConsumerMaker = Callable[..., Consumer]


class Growing(Cluster):
    """A cluster that begins with one node and is joined by others."""

    def __init__(self, folder: Path) -> None:
        super().__init__([])
        self._folder = folder
        self._peers = [free_port()]
        self._add()

    def join(self) -> LeveretProcess:
        """Start one more node that joins by the first."""
        token = self._folder / "token"
        token.write_text((self._folder / "node-1" / "tls" / "token").read_text())
        token.chmod(0o600)
        self._peers.append(free_port())
        self._add("--join", f"127.0.0.1:{self._peers[0]}", "--token-file", str(token)).start()
        return self.members[-1]

    def _add(self, *arguments: str) -> LeveretProcess:
        number, port = len(self.members) + 1, free_port()
        data = self._folder / f"node-{number}"
        member = LeveretProcess(
            [
                "node",
                *arguments,
                *("--data-dir", str(data), "--log-level", "warning"),
                *("--listen", f"127.0.0.1:{port}"),
                *("--peer-listen", f"127.0.0.1:{self._peers[-1]}"),
            ],
            [port],
            self._folder / f"node-{number}.log",
            data=data,
        )
        self.members.append(member)
        return member


@pytest.fixture
def growing(tmp_path: Path) -> Iterator[Growing]:
    cluster = Growing(tmp_path)
    try:
        cluster.heal()
        yield cluster
    finally:
        cluster.kill_all()


def test_what_one_node_had_survives_that_node_once_two_have_joined(growing: Growing) -> None:
    kept = publish_some(growing, 0, "kept", 50)
    growing.join()
    growing.join()

    growing[0].kill()

    assert kept == drain(growing, 2, "kept", 50)


def test_a_cluster_grows_under_load_and_nothing_is_lost_or_doubled(
    growing: Growing, publish: PublisherMaker, consume: ConsumerMaker
) -> None:
    publish_some(growing, 0, "flow", 0)
    consumer = consume(growing.url(0), "flow")
    publisher = publish(growing.url(0), "flow")
    for _ in range(2):
        publisher.wait_confirmed(len(publisher.confirmed) + 300)
        growing.join()
    publisher.wait_confirmed(len(publisher.confirmed) + 300)
    publisher.finish()
    consumer.wait("all", lambda: consumer.distinct >= set(publisher.confirmed), within_s=15)
    consumer.close()

    verdict = judge(publisher.next, publisher.confirmed, consumer.deliveries)
    assert verdict.is_clean, verdict


def test_members_that_joined_start_again_from_their_folders_alone(growing: Growing) -> None:
    growing.join()
    growing.join()
    kept = publish_some(growing, 1, "kept", 20)
    for member in growing.members:
        member.kill()
        member.arguments = [
            argument
            for argument, before in zip(member.arguments, ["", *member.arguments], strict=False)
            if not {argument, before} & {"--join", "--token-file"}
        ]

    growing.heal()

    assert kept == drain(growing, 2, "kept", 20)


def test_a_newcomer_with_a_wrong_token_is_refused_in_words(
    growing: Growing, tmp_path: Path
) -> None:
    (tmp_path / "wrong").write_text("00" * 32)
    (tmp_path / "wrong").chmod(0o600)
    first = growing.members[0].arguments
    by = first[first.index("--peer-listen") + 1]
    newcomer = LeveretProcess(
        [
            *("node", "--data-dir", str(tmp_path / "d"), "--listen", f"127.0.0.1:{free_port()}"),
            *("--join", by, "--token-file", str(tmp_path / "wrong")),
            *("--peer-listen", f"127.0.0.1:{free_port()}"),
        ],
        [],
        tmp_path / "newcomer.log",
    )
    newcomer.launch()

    assert 2 == newcomer.wait_ended()
    for log in (newcomer.log_text(), growing[0].log_text()):
        assert "the token is not that of this cluster" in log
        assert "Traceback" not in log
