"""Nothing but whole messages and our own entries gets in from the wire."""

from __future__ import annotations

import pickle

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leveret.consensus import BadMessage
from leveret.consensus.entries import NO_OP, VERSION, is_entry, seal, unseal
from leveret.consensus.messages import (
    Append,
    Message,
    PreVote,
    PreVoteRequest,
    Reply,
    Resume,
    Stale,
    Submit,
    TimeoutNow,
    TransferRequest,
    Vote,
    VoteRequest,
    parse,
    to_wire,
)

ENTRIES = ((1, NO_OP), (2, seal(b"a")), (2, seal(b"")))
MESSAGES: list[Message] = [
    Append(2, 9, 5, 1, 4, 3, ENTRIES),
    Reply(2, 9, 6, is_success=True, is_reset=False),
    VoteRequest(2, 5, 1, is_transfer=True),
    Vote(2),
    PreVoteRequest(2, 5, 1),
    PreVote(2, is_granted=True, current_term=1),
    Stale(3),
    TimeoutNow(3),
    Submit(7, 1, 2, b"body"),
    Resume(3, 7, 1),
    TransferRequest(3),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_survives_the_wire(message: Message) -> None:
    wire = msgpack.unpackb(msgpack.packb(to_wire(3, message)), use_list=False)

    assert (3, message) == parse(wire)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_field_of_another_type_or_number_is_refused(message: Message) -> None:
    wire = to_wire(3, message)

    for at in range(len(wire)):
        bads: list[object] = [None, -1, 1 << 63, "text", 1.5, [], {}, ("x",)]
        for bad in bads:
            with pytest.raises(BadMessage):
                parse((*wire[:at], bad, *wire[at + 1 :]))
    for other in (wire[:-1], (*wire, 0), list(wire), b"x", None):
        with pytest.raises(BadMessage):
            parse(other)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.binary(max_size=20) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=9).map(tuple),
    max_leaves=20,
)


@given(kind=st.integers(0, 12), fields=st.lists(values, max_size=9))
def test_garbage_is_refused_with_one_error(kind: int, fields: list[object]) -> None:
    try:
        parse((0, kind, *fields))
    except BadMessage:
        return


@pytest.mark.parametrize(
    "command",
    [
        b"",
        b"\x00",
        b"\x02" + pickle.dumps(["add", 4]),
        b"\x03" + pickle.dumps(1),
        b"\x00" + pickle.dumps((0, (b"x",))),
        b"\x00" + pickle.dumps(print),
        seal(b"abc")[:-1],
        seal(b"abc") + b".",
        seal(b"abc").replace(b"K\x00", b"K\x01"),
        NO_OP + b"\x00",
    ],
)
def test_an_entry_that_is_not_ours_is_refused(command: bytes) -> None:
    assert not is_entry(command)
    with pytest.raises(BadMessage):
        parse(to_wire(0, Append(1, 1, 1, 0, 0, 0, ((1, command),))))


@given(st.binary(max_size=300))
def test_a_sealed_payload_unpickles_to_a_call_of_the_one_method(payload: bytes) -> None:
    payload = bytes((VERSION,)) + payload
    command = seal(payload)

    assert is_entry(command)
    assert payload == unseal(command)
    assert (0, (payload,)) == pickle.loads(command[1:])


@pytest.mark.parametrize(
    "entries", [((3, NO_OP),), ((0, NO_OP),), ((2, NO_OP), (1, NO_OP))], ids=str
)
def test_entries_of_impossible_terms_are_refused(entries: tuple[tuple[int, bytes], ...]) -> None:
    with pytest.raises(BadMessage):
        parse(to_wire(0, Append(2, 1, 1, 1, 0, 0, entries)))
