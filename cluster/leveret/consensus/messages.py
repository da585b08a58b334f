"""What members of one group say to each other, and the only way in from the wire.

Owns the wire form: a tuple of a kind number and plain values (MessagePack by the transport),
and `parse`, which lets nothing through that is not whole and in range. Knows no state.

PySyncObj's own messages are dicts with string keys, some of them with pickles; none is ever
taken from the wire. `apply_command` and the utility messages have no wire form at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from leveret.consensus.entries import is_entry
from leveret.consensus.errors import BadMessage

INDEX_MAX = (1 << 63) - 1

FETCH_MAX = 1024
"""Entries of one request or answer."""


class Append(NamedTuple):
    """The leader's entries after `previous_index`; none is a heartbeat.

    sequence: counts the appends of one leader to one follower; echoed in `Reply`.
    safe_index: every member holds the log up to here durably; what is below may be trimmed.
    entries: pairs of term and command; indexes follow `previous_index`.
    """

    term: int
    sequence: int
    previous_index: int
    previous_term: int
    commit_index: int
    safe_index: int
    entries: tuple[tuple[int, bytes], ...]


class Reply(NamedTuple):
    """The answer to an append. `is_reset`: the logs differ, begin again at `next_index`."""

    term: int
    sequence: int
    next_index: int
    is_success: bool
    is_reset: bool


class VoteRequest(NamedTuple):
    """A candidate asks; `is_transfer`: the leader itself told it to."""

    term: int
    last_index: int
    last_term: int
    is_transfer: bool


class Vote(NamedTuple):
    """Granted; a refusal is silence."""

    term: int


class PreVoteRequest(NamedTuple):
    """Would you vote for me in `term`? Asked before any term is raised."""

    term: int
    last_index: int
    last_term: int


class PreVote(NamedTuple):
    """`term` as asked; `current_term` is the answerer's own."""

    term: int
    is_granted: bool
    current_term: int


class Stale(NamedTuple):
    """Your message was of an old term; this is the newest that I know."""

    term: int


class TimeoutNow(NamedTuple):
    """The leader hands over: begin an election at once."""

    term: int


class Offer(NamedTuple):
    """The leader has trimmed what you need next: fetch a snapshot from me. Also a sign of life."""

    term: int
    first_index: int


class Installed(NamedTuple):
    """What was offered is here, or not needed: the sender has all that is committed up to here."""

    term: int
    last_index: int


class FetchState(NamedTuple):
    """Send me the state of your newest snapshot, from `offset` on.

    snapshot_index: of the snapshot that was begun with; 0 for any.
    """

    snapshot_index: int
    offset: int


class StatePart(NamedTuple):
    """`part` of a snapshot's state at `offset`; `size` is that of all of it, in bytes."""

    snapshot_index: int
    term: int
    previous_term: int
    size: int
    offset: int
    part: bytes


class FetchEntries(NamedTuple):
    """Send me these entries of your log, of which a snapshot says that they live."""

    snapshot_index: int
    indexes: tuple[int, ...]


class EntriesPart(NamedTuple):
    """Some of the entries asked for, in the order asked: index, term and command of each.

    gone: indexes of those whose messages have been settled meanwhile; nobody needs them any more.
    """

    entries: tuple[tuple[int, int, bytes], ...]
    gone: tuple[int, ...]


class Beat(NamedTuple):
    """The leader of `term` lives, and has nothing new to say. Answered by `Heard`.

    number: of the round of beats; grows within the term.
    """

    term: int
    number: int


class Heard(NamedTuple):
    """The sender still followed the leader of `term` when the beat `number` had come."""

    term: int
    number: int


class ReadRequest(NamedTuple):
    """What is committed now? Asked of the leader; `number` is echoed."""

    number: int


class ReadGrant(NamedTuple):
    """All that was committed when `number` was asked is in the log up to `commit_index`."""

    number: int
    commit_index: int


class Submit(NamedTuple):
    """A batch for the leader's log (see `entries.Batch`)."""

    boot: int
    sequence: int
    commands: int
    body: bytes


class Resume(NamedTuple):
    """The leader of `term` next takes batch `sequence` of the receiver's `boot`."""

    term: int
    boot: int
    sequence: int


class TransferRequest(NamedTuple):
    """The preferred leader asks the leader of `term` to hand over."""

    term: int


Message = (
    Append
    | Reply
    | VoteRequest
    | Vote
    | PreVoteRequest
    | PreVote
    | Stale
    | TimeoutNow
    | Offer
    | Installed
    | FetchState
    | StatePart
    | FetchEntries
    | EntriesPart
    | Beat
    | Heard
    | ReadRequest
    | ReadGrant
    | Submit
    | Resume
    | TransferRequest
)

_KINDS: dict[type[Message], int] = {
    Append: 1,
    Reply: 2,
    VoteRequest: 3,
    Vote: 4,
    PreVoteRequest: 5,
    PreVote: 6,
    Stale: 7,
    TimeoutNow: 8,
    Submit: 9,
    Resume: 10,
    TransferRequest: 11,
    Offer: 12,
    Installed: 13,
    FetchState: 14,
    StatePart: 15,
    FetchEntries: 16,
    EntriesPart: 17,
    Beat: 18,
    Heard: 19,
    ReadRequest: 20,
    ReadGrant: 21,
}


def to_wire(group: int, message: Message) -> tuple[object, ...]:
    """Return the flat tuple that the transport packs: group, kind, then the fields."""
    return (group, _KINDS[type(message)], *message)


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value <= INDEX_MAX:
        raise BadMessage("no number in range")
    return value


def _flag(value: object) -> bool:
    if type(value) is not bool:
        raise BadMessage("no flag")
    return value


def _bytes(value: object) -> bytes:
    if type(value) is not bytes:
        raise BadMessage("no bytes")
    return value


def _entries(value: object) -> tuple[tuple[int, bytes], ...]:
    if type(value) is not tuple:
        raise BadMessage("no entries")
    newest = 0
    for entry in value:
        if type(entry) is not tuple or len(entry) != 2:
            raise BadMessage("no entry")
        term, command = entry
        if _number(term) < newest:
            raise BadMessage("terms of entries go back")
        newest = term
        if type(command) is not bytes or not is_entry(command):
            raise BadMessage("an entry that none of us wrote")
    return value


def _append(fields: tuple[object, ...]) -> Append:
    term, sequence, previous_index, previous_term, commit_index, safe_index = map(
        _number, fields[:6]
    )
    entries = _entries(fields[6])
    if previous_index < 1 or previous_term > term:
        raise BadMessage("impossible previous entry")
    if entries and (entries[0][0] < previous_term or entries[-1][0] > term):
        raise BadMessage("entries of an impossible term")
    return Append(term, sequence, previous_index, previous_term, commit_index, safe_index, entries)


def _reply(fields: tuple[object, ...]) -> Reply:
    term, sequence, next_index = map(_number, fields[:3])
    is_success, is_reset = map(_flag, fields[3:])
    if next_index < 1 or (is_success and is_reset):
        raise BadMessage("impossible reply")
    return Reply(term, sequence, next_index, is_success, is_reset)


def _vote_request(fields: tuple[object, ...]) -> VoteRequest:
    term, last_index, last_term = map(_number, fields[:3])
    return VoteRequest(term, last_index, last_term, _flag(fields[3]))


def _pre_vote(fields: tuple[object, ...]) -> PreVote:
    return PreVote(_number(fields[0]), _flag(fields[1]), _number(fields[2]))


def _submit(fields: tuple[object, ...]) -> Submit:
    boot, sequence, commands = map(_number, fields[:3])
    return Submit(boot, sequence, commands, _bytes(fields[3]))


def _state_part(fields: tuple[object, ...]) -> StatePart:
    index, term, previous_term, size, offset = map(_number, fields[:5])
    part = _bytes(fields[5])
    if offset + len(part) > size or (not part and size):
        raise BadMessage("a part beyond its state, or an empty one")
    return StatePart(index, term, previous_term, size, offset, part)


def _numbers(value: object) -> tuple[int, ...]:
    if type(value) is not tuple or len(value) > FETCH_MAX:
        raise BadMessage("no indexes, or too many")
    return tuple(map(_number, value))


def _entries_part(fields: tuple[object, ...]) -> EntriesPart:
    entries = fields[0]
    if type(entries) is not tuple or len(entries) > FETCH_MAX:
        raise BadMessage("no entries, or too many")
    for entry in entries:
        if type(entry) is not tuple or len(entry) != 3:
            raise BadMessage("no entry")
        if type(entry[2]) is not bytes or not is_entry(entry[2]):
            raise BadMessage("an entry that none of us wrote")
        _number(entry[0])
        _number(entry[1])
    return EntriesPart(entries, _numbers(fields[1]))


_PARSERS: dict[int, tuple[int, Callable[[tuple[object, ...]], Message]]] = {
    1: (7, _append),
    2: (5, _reply),
    3: (4, _vote_request),
    4: (1, lambda fields: Vote(*map(_number, fields))),
    5: (3, lambda fields: PreVoteRequest(*map(_number, fields))),
    6: (3, _pre_vote),
    7: (1, lambda fields: Stale(*map(_number, fields))),
    8: (1, lambda fields: TimeoutNow(*map(_number, fields))),
    9: (4, _submit),
    10: (3, lambda fields: Resume(*map(_number, fields))),
    11: (1, lambda fields: TransferRequest(*map(_number, fields))),
    12: (2, lambda fields: Offer(*map(_number, fields))),
    13: (2, lambda fields: Installed(*map(_number, fields))),
    14: (2, lambda fields: FetchState(*map(_number, fields))),
    15: (6, _state_part),
    16: (2, lambda fields: FetchEntries(_number(fields[0]), _numbers(fields[1]))),
    17: (2, _entries_part),
    18: (2, lambda fields: Beat(*map(_number, fields))),
    19: (2, lambda fields: Heard(*map(_number, fields))),
    20: (1, lambda fields: ReadRequest(*map(_number, fields))),
    21: (2, lambda fields: ReadGrant(*map(_number, fields))),
}


def parse(payload: object) -> tuple[int, Message]:
    """Return the group number and the message of a payload from the wire.

    Raises:
        BadMessage: anything else than a whole message with fields in range.
    """
    if type(payload) is not tuple or len(payload) < 2:
        raise BadMessage("no message")
    group = _number(payload[0])
    kind = _number(payload[1])
    known = _PARSERS.get(kind)
    if known is None:
        raise BadMessage(f"unknown kind {kind}")
    size, parser = known
    if len(payload) != size + 2:
        raise BadMessage(f"kind {kind} with {len(payload) - 2} fields")
    return group, parser(payload[2:])
