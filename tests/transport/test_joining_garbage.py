"""Whatever is said in a join, by whichever side: it is refused, and nothing else happens."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from pathlib import Path

import msgpack
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from leveret.transport import Admission, JoinRequest, NotReached, Refused
from leveret.transport.admission import Admitted, JoinAnswer

from .joins import HERE, Cluster, frame, is_empty, liar, newcomer
from .support import ONE, TWO
from .virtual import Net, Socket


@pytest.fixture
async def net() -> Net:
    return Net()


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.text(max_size=20)
    | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
REQUEST = JoinRequest(
    name="zwei", address=HERE, incarnation=7, software="x", cluster="", public_key=b""
).payload(bytes(32))
ANSWER = JoinAnswer(cluster="hares", node=ONE, name="eins", software="x").payload(bytes(32))
ADMITTED = Admitted(
    cluster="hares",
    admission=Admission(node=TWO, name="zwei", members={TWO: HERE}),
    certified=None,
).payload()


def mutations(whole: dict[str, object]) -> st.SearchStrategy[object]:
    """Return payloads like `whole` with some members changed, or anything at all."""
    changes = st.dictionaries(st.sampled_from(sorted(whole)), VALUES, min_size=1, max_size=3)
    return changes.map(lambda changed: whole | changed) | VALUES


def frames_like(channel: str, whole: dict[str, object]) -> st.SearchStrategy[bytes]:
    channels = st.sampled_from(["#hello", "#join", "#proof", "#admitted", "#refused", "test"])
    return (
        mutations(whole).map(lambda payload: frame(channel, payload))
        | st.builds(frame, channels, mutations(whole))
        | st.binary(max_size=60)
        | st.just(frame(channel, whole))
    )


MANY = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize(
    ("parse", "whole"),
    [
        (JoinRequest.parse, REQUEST),
        (JoinAnswer.parse, ANSWER),
        (lambda payload: Admitted.parse(payload, needs_certificate=False), ADMITTED),
        (lambda payload: Admitted.parse(payload, needs_certificate=True), ADMITTED),
    ],
)
@MANY
@given(data=st.data())
def test_what_is_parsed_is_whole_or_refused(
    parse: Callable[[object], object], whole: dict[str, object], data: st.DataObject
) -> None:
    payload = msgpack.unpackb(
        msgpack.packb(data.draw(mutations(whole))), use_list=False, strict_map_key=False
    )
    with contextlib.suppress(Refused):
        assert isinstance(parse(payload), JoinRequest | JoinAnswer | Admitted)


@MANY
@given(st.lists(frames_like("#join", REQUEST) | frames_like("#proof", {"x": 1}), max_size=4))
def test_a_member_survives_whatever_a_newcomer_says(said: list[bytes]) -> None:
    async def main() -> None:
        net, cluster = Net(), Cluster()
        async with trio.open_nursery() as nursery:
            at = await cluster.start(nursery)
            stranger = Socket(net)
            await stranger.connect(at)
            with contextlib.suppress(ConnectionResetError):  # after the first thing that is wrong
                for part in said:
                    await stranger.send(part)
                stranger.shutdown(1)
                while await stranger.recv(65536):
                    pass
            stranger.close()
            await wait_all_tasks_blocked()

            assert [] == cluster.requests
            assert 0 == cluster.node.peers._strangers
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))


@MANY
@given(
    st.lists(frames_like("#join", ANSWER), min_size=1, max_size=2),
    st.lists(frames_like("#admitted", ADMITTED), max_size=2),
    st.lists(frames_like("#proof", {"x": 1}), max_size=2),
)
def test_a_newcomer_survives_whatever_a_member_says(
    tmp_path: Path, answers: list[bytes], admissions: list[bytes], proofs: list[bytes]
) -> None:
    async def main() -> None:
        net = Net()
        async with trio.open_nursery() as nursery:
            at = await liar(net, nursery, [*answers, *admissions, *proofs])
            with pytest.raises((Refused, NotReached)):
                await newcomer(at, tmp_path)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert is_empty(tmp_path)


async def test_a_frame_beyond_the_limit_is_refused_unread_on_both_sides(
    autojump_clock: MockClock, net: Net, tmp_path: Path
) -> None:
    huge = struct.pack("<I", 2**32 - 1)
    async with trio.open_nursery() as nursery:
        answer = frame("#join", ANSWER)
        for script, limit in (([huge], 4096), ([answer, huge], 65536)):
            at = await liar(net, nursery, script)
            with pytest.raises(Refused, match=f"4294967295 bytes exceeds the limit of {limit}"):
                await newcomer(at, tmp_path)
        nursery.cancel_scope.cancel()
