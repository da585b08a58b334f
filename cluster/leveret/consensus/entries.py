"""The bytes of a log entry: what PySyncObj unpickles, and inside it what a group applies.

Owns both layouts; knows no clock, no term, no network.

PySyncObj applies a command by unpickling it and calling a method by number. Exactly one
method is replicated here, with exactly one argument of bytes, so the pickle around an
entry is a constant header, a length and a constant footer. `is_entry` compares bytes and
thereby makes sure that nothing else ever reaches `pickle.loads`.

Inside: `<BQH` version, stamp in ms, batches; a batch is `<HQQII` node, boot, sequence,
commands, bytes of the commands; a command is `<I` length and its bytes. An empty command
only marks a place among a node's submissions and never reaches the machine. A payload that
begins with `CONFIGURATION` in place of the version is a configuration (see `membership`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from leveret.consensus.errors import BadEntry
from leveret.consensus.membership import (
    Configuration,
    decode_configuration,
    encode_configuration,
)
from leveret.transport import NodeId

NO_OP = b"\x01"
"""What PySyncObj appends at the start of a term, and as entry 1 of every log."""

_REGULAR = b"\x00"
_PICKLE_HEAD = b"\x80\x04K\x00B"  # protocol 4, method number 0, BINBYTES with 4 bytes of length
_PICKLE_TAIL = b"\x85\x86."  # a tuple of one, a pair, stop
_LENGTH = struct.Struct("<I")
_HEAD = _REGULAR + _PICKLE_HEAD
_HEAD_SIZE = len(_HEAD) + _LENGTH.size
_FRAME_SIZE = _HEAD_SIZE + len(_PICKLE_TAIL)

VERSION = 1
CONFIGURATION = b"\x02"
_ENTRY = struct.Struct("<BQH")
_BATCH = struct.Struct("<HQQII")
BATCHES_MAX = 0xFFFF
BATCH_HEAD_SIZE = _BATCH.size
COMMAND_HEAD_SIZE = _LENGTH.size


class Batch(NamedTuple):
    """Commands of one submitter in one go; the unit of exactly-once.

    boot: grows with every start of the submitter's process.
    sequence: contiguous from 1 within a boot.
    body: `commands` commands, each a length and its bytes.
    """

    node: NodeId
    boot: int
    sequence: int
    commands: int
    body: bytes


def seal(payload: bytes) -> bytes:
    """Wrap a payload as the command that PySyncObj takes."""
    return b"".join((_HEAD, _LENGTH.pack(len(payload)), payload, _PICKLE_TAIL))


def unseal(command: bytes) -> memoryview:
    """Return the payload of a sealed command, without a copy."""
    return memoryview(command)[_HEAD_SIZE : len(command) - len(_PICKLE_TAIL)]


def is_entry(command: bytes) -> bool:
    """Whether a command from a peer is one of ours: a sealed payload or the no-op."""
    if command == NO_OP:
        return True
    if not (
        len(command) >= _FRAME_SIZE
        and command.startswith(_HEAD)
        and command.endswith(_PICKLE_TAIL)
        and _LENGTH.unpack_from(command, len(_HEAD))[0] == len(command) - _FRAME_SIZE
    ):
        return False
    try:
        configuration_in(command)
    except BadEntry:
        return False
    return True


def seal_configuration(configuration: Configuration) -> bytes:
    """Return the command of the entry that puts a configuration in force."""
    return seal(CONFIGURATION + encode_configuration(configuration))


def configuration_in(command: bytes) -> Configuration | None:
    """Return the configuration that a sealed command holds; None if it holds something else.

    Raises:
        BadEntry: it says that it holds one, and does not.
    """
    if command[_HEAD_SIZE : _HEAD_SIZE + 1] != CONFIGURATION:
        return None
    return decode_configuration(unseal(command)[1:])


def encode_commands(commands: Iterable[bytes]) -> bytes:
    """Join commands to the body of a batch."""
    parts: list[bytes] = []
    for command in commands:
        parts.append(_LENGTH.pack(len(command)))
        parts.append(command)
    return b"".join(parts)


def encode_entry(stamp_ms: int, batches: Sequence[Batch]) -> bytes:
    """Join batches to the payload of one entry."""
    parts = [_ENTRY.pack(VERSION, stamp_ms, len(batches))]
    for batch in batches:
        node, boot, sequence, commands, body = batch
        parts.append(_BATCH.pack(node, boot, sequence, commands, len(body)))
        parts.append(body)
    return b"".join(parts)


class Entry(NamedTuple):
    """A decoded payload: the stamp, and each batch with the offset of its body in the payload."""

    stamp_ms: int
    batches: list[tuple[Batch, int]]


def decode_entry(payload: bytes) -> Entry:
    """Take a payload apart.

    Raises:
        BadEntry: an unknown version, or lengths that do not add up.
    """
    try:
        version, stamp_ms, count = _ENTRY.unpack_from(payload)
        if version != VERSION:
            raise BadEntry(f"entry version {version}")
        offset = _ENTRY.size
        batches: list[tuple[Batch, int]] = []
        for _ in range(count):
            node, boot, sequence, commands, size = _BATCH.unpack_from(payload, offset)
            offset += _BATCH.size
            body = payload[offset : offset + size]
            if len(body) != size:
                raise BadEntry("a batch ends beyond its entry")
            batches.append((Batch(NodeId(node), boot, sequence, commands, body), offset))
            offset += size
    except struct.error as error:
        raise BadEntry("an entry ends within a header") from error
    if offset != len(payload):
        raise BadEntry("bytes after the last batch")
    return Entry(stamp_ms, batches)


def split_commands(batch: Batch) -> Iterator[tuple[bytes, int]]:
    """Give each command of a batch and its offset in the batch's body.

    Raises:
        BadEntry: the lengths or the count do not add up.
    """
    body = batch.body
    offset = 0
    for _ in range(batch.commands):
        start = offset + _LENGTH.size
        if start > len(body):
            raise BadEntry("a batch ends within a length")
        offset = start + _LENGTH.unpack_from(body, start - _LENGTH.size)[0]
        if offset > len(body):
            raise BadEntry("a command ends beyond its batch")
        yield body[start:offset], start
    if offset != len(body):
        raise BadEntry("bytes after the last command")


def is_whole(batch: Batch) -> bool:
    """Whether the lengths and the count of a batch's commands add up."""
    try:
        for _ in split_commands(batch):
            pass
    except BadEntry:
        return False
    return True
