"""Where a leader's log and a follower's agree, found on the follower. Pure."""

from __future__ import annotations

from leveret.consensus.engine import Log
from leveret.consensus.errors import SafetyViolation
from leveret.consensus.journal import CoreEntry


def without_known(
    own: Log, commit_index: int, previous: int, previous_term: int, entries: list[CoreEntry]
) -> tuple[int, int, list[CoreEntry], int] | None:
    """Return what is new of an append, in a form that truncates nothing but conflicts.

    The core deletes whatever it has after `previous`. So what it has already is taken off
    the front; if nothing is left, the append is moved to the end of the log.

    Returns None if the logs do not meet at `previous`: the core refuses. Otherwise the new
    previous index and term, the entries to add, and the index up to which the logs agree.

    Raises:
        SafetyViolation: an entry conflicts with a committed one.
    """
    last = own.last_index
    if not own.first_index <= previous <= last or own.term_at(previous) != previous_term:
        return None
    matched = previous
    for _, index, term in entries:
        if index > last or own.term_at(index) != term:
            break
        matched = index
    new = entries[matched - previous :]
    if not new:
        return last, own.term_at(last), [], matched
    if matched < last and matched < commit_index:
        raise SafetyViolation(f"the leader's entry {matched + 1} differs from a committed one")
    return matched, own.term_at(matched), new, matched


def conflict_start(own: Log, commit_index: int, index: int) -> int:
    """Return the first index of the conflicting entry's term, but what is committed stays.

    Raises:
        SafetyViolation: the leader contradicts a committed entry.
    """
    if index <= commit_index:
        raise SafetyViolation(f"the leader disagrees about committed entry {index}")
    floor = max(commit_index, own.first_index)
    term = own.term_at(index)
    while index - 1 > floor and own.term_at(index - 1) == term:
        index -= 1
    return index
