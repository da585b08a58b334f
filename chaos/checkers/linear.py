"""Metadata: every object behaves as if there was one copy, changed by one client at a time.

Wing and Gong's search with Lowe's memory of visited states, one object at a time. The state of an
object is whether it is there. An operation without an answer may happen at any time after its
begin, or never.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from chaos.history import Event, Operation

ENDLESS = float("inf")


def linearizable(events: Iterable[Event]) -> Iterator[str]:
    """Complain of objects whose operations have no order that explains all answers."""
    by_name: dict[str, list[Operation]] = {}
    for event in events:
        if isinstance(event, Operation):
            by_name.setdefault(event.name, []).append(event)
    for name, operations in sorted(by_name.items()):
        explained = explain(sorted(operations, key=lambda operation: operation.began))
        if explained is not None:
            yield (
                f"not linearizable: {name}; {explained} of {len(operations)} operations can be"
                f" explained"
            )


def explain(operations: list[Operation]) -> int | None:
    """Return None if there is such an order, else how many operations the best one reaches."""
    answered = sum(1 << at for at, one in enumerate(operations) if one.result != "unknown")
    start = 0, False
    visited = {start}
    stack = [start]
    best = 0
    while stack:
        done, is_there = stack.pop()
        if done & answered == answered:
            return None
        best = max(best, done.bit_count())
        # Whatever comes next must have begun before the earliest end of those still to come.
        pending = [at for at in range(len(operations)) if not done >> at & 1]
        first_end = min(operations[at].ended for at in pending)
        for at in pending:
            operation = operations[at]
            if operation.began > first_end:
                break
            after = apply(operation, is_there=is_there)
            if after is None:
                continue
            state = done | 1 << at, after
            if state not in visited:
                visited.add(state)
                stack.append(state)
    return best


def apply(operation: Operation, *, is_there: bool) -> bool | None:
    """Return whether the object is there after an operation; None if its answer is impossible."""
    match operation.kind, operation.result:
        case "declare", _:
            return True
        case "delete", _:
            return False
        case "look", "ok":
            return True if is_there else None
        case "look", "missing":
            return None if is_there else False
        case _:
            return is_there
