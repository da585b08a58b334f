"""A control socket in a data folder, with a node behind it that answers what it is given."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio

from leveret.node.control.controls import Arguments, ControlError, Controls
from leveret.node.control.replies import (
    ClusterStatus,
    GroupHere,
    GroupSeen,
    MemberLag,
    MemberSeen,
    NodeSeen,
    NodeStatus,
    Rates,
    Totals,
)
from leveret.node.control.server import ControlServer


class Anything(Arguments, frozen=True, forbid_unknown_fields=False):
    """Takes whatever is asked."""


@contextmanager
def canned_node(
    folder: Path, answers: Mapping[str, object], *, controls: Controls | None = None
) -> Iterator[None]:
    """Serve in a thread: each request gets its answer, or the `ControlError` that is one.

    An iterator gives one answer after the other.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = controls or Controls()

    def handler(answer: object) -> Callable[[Anything], Awaitable[object]]:
        async def reply(_: Anything) -> object:
            given = next(answer) if isinstance(answer, Iterator) else answer
            if isinstance(given, ControlError):
                raise given
            return given

        return reply

    for name, answer in answers.items():
        table.add(name, Anything, handler(answer))
    ready = threading.Event()
    scope = trio.CancelScope()
    token: list[trio.lowlevel.TrioToken] = []

    async def serve() -> None:
        token.append(trio.lowlevel.current_trio_token())
        with scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(ControlServer(folder, table).run)
                ready.set()

    thread = threading.Thread(target=trio.run, args=(serve,), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield
    finally:
        token[0].run_sync_soon(scope.cancel)
        thread.join(10)


@contextmanager
def recording_node(folder: Path, answers: Mapping[str, object]) -> Iterator[list[dict[str, Any]]]:
    """Serve likewise; the list is of what was asked for, as it came."""
    asked: list[dict[str, Any]] = []

    class Recording(Controls):
        async def answer(self, request: bytes) -> bytes:
            asked.append(msgspec.json.decode(request))
            return await super().answer(request)

    with canned_node(folder, answers, controls=Recording()):
        yield asked


def node_status(**fields: object) -> NodeStatus:
    """Return the status of a node that does little."""
    values: dict[str, Any] = {
        "node": 1,
        "name": "node-1",
        "cluster": "hares",
        "version": "0.1.0",
        "pid": 4711,
        "phase": "serving",
        "incarnation": 1,
        "boot": 1,
        "uptime_s": 125.0,
        "data_dir": "/var/lib/leveret",
        "amqp": ["127.0.0.1:5672"],
        "amqp_tls": [],
        "peers": None,
        "linked": [],
        "alarms": [],
        "memory_bytes": 64_000_000,
        "memory_limit_bytes": 4_000_000_000,
        "disk_free_bytes": 5_000_000_000,
        "disk_free_limit_bytes": 50_000_000,
        "connections": 3,
        "queues": 7,
        "messages_ready": 12_345,
        "messages_unacked": 6,
        "totals": Totals(published=10, confirmed=9, delivered=8, settled=7),
        "rates": Rates(published=4.0, confirmed=3.0, delivered=2.0, settled=1.0),
        "groups": [],
    }
    return NodeStatus(**{**values, **fields})


def group_here(
    role: str, *, group: int = 1, term: int = 1, lags: Mapping[int, int] | None = None
) -> GroupHere:
    """Return a group with ten entries; `lags` of the others as a leader tells them."""
    return GroupHere(
        group=group,
        role=role,
        term=term,
        leader=None,
        is_ready=True,
        commit_index=10,
        applied_index=10,
        last_index=10,
        peers={
            node: MemberLag(match_index=10 - lag, lag=lag) for node, lag in (lags or {}).items()
        },
        voters=[1, 2, 3],
        learners=[],
    )


def cluster_status() -> ClusterStatus:
    """Return the status of three nodes; the third is down."""
    names = {1: "serving", 2: "starting", 3: None}
    return ClusterStatus(
        cluster="hares",
        asked=1,
        nodes=[
            NodeSeen(
                node=node,
                name=f"node-{node}",
                is_up=node != 3,
                addresses=[f"amqp://127.0.0.1:567{node + 1}"],
                incarnation=1,
                boot=1,
                phase=phase,  # type: ignore[arg-type]
                version="0.1.0" if phase else None,
                leads=[0] if node == 1 else [],
            )
            for node, phase in names.items()
        ],
        groups=[
            GroupSeen(
                group=0,
                leader=1,
                term=4,
                commit_index=100,
                applied_index=100,
                last_index=100,
                members=[
                    MemberSeen(node=1, is_voter=True, role="leader", applied_index=100, lag=0),
                    MemberSeen(node=2, is_voter=True, role="follower", applied_index=98, lag=2),
                    MemberSeen(node=3, is_voter=True, role=None, applied_index=None, lag=40),
                ],
            ),
            GroupSeen(
                group=1,
                leader=None,
                term=2,
                commit_index=5,
                applied_index=5,
                last_index=6,
                members=[
                    MemberSeen(node=1, is_voter=True, role="candidate", applied_index=5, lag=None)
                ],
            ),
        ],
    )
