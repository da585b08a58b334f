"""Known mistakes, planted into the product one at a time, for the simulation to find.

Each is what somebody could write: a missing sync, a vote that is forgotten, a mark that nobody
looks at. A simulation that does not find them would not find the real ones, so the share that it
finds says what it is worth. A mistake is an edit of the source text of a function, which is then
compiled and put in its place; so a change of the product that an edit does not fit any more is
noticed at once.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from types import CodeType, FunctionType
from typing import Final

from chaos.simulation.faults import KINDS


@dataclass(frozen=True)
class Edit:
    """One replacement in the source of one function.

    place: module:function or module:Class.method.
    old: must stand in it, once.
    """

    place: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutation:
    """A mistake.

    kinds: the faults that it takes; with all of them it is found too, but later.
    simulator: which one finds it: "nodes"; or "engines" (`chaos.simulation.raft`), which runs four
        times as much of consensus in the same time and nothing else; or "scene", where it takes
        so many coincidences that a test of its own plays them (`tests/chaos/test_mutations.py`).
    seeds: some that find it, the quickest first.
    """

    text: str
    edits: tuple[Edit, ...]
    simulator: str = "nodes"
    kinds: tuple[str, ...] = KINDS
    seeds: tuple[int, ...] = ()


_CORE: Final = "pysyncobj.syncobj:SyncObj."
_GUARD: Final = "leveret.consensus.guard:Guard."
_GROUP: Final = "leveret.consensus.group:Group."
_SESSIONS: Final = "leveret.consensus.sessions:"
_DISPATCH: Final = "leveret.broker.queues.dispatch:Dispatcher."
_QUEUE: Final = "leveret.broker.queues.queue:QueueActor."
_STREAM: Final = "leveret.broker.queues.stream_lead:StreamLead."
_STORAGE: Final = "leveret.storage."
_LEADERS: Final = ("kill-leader", "pause-leader", "stop", "isolate", "reset")
"""Faults after which another node leads."""

MUTATIONS: Final[dict[str, Mutation]] = {
    "no-sync": Mutation(
        "the journal promises without a sync",
        (
            Edit(
                _STORAGE + "segments:Tail.sync",
                "await self._file.sync()",
                "pass",
            ),
        ),
        kinds=("outage", "power", "kill"),
        seeds=(0,),
    ),
    "vote-forgotten": Mutation(
        "a vote is not written to disk, the term is",
        (
            Edit(
                "leveret.consensus.journal:CoreJournal.setCurrentTerm",
                "self._log.save_vote(term, votedForNodeId)",
                "self._log.save_vote(term, None)",
            ),
        ),
        simulator="scene",
    ),
    "promise-before-durable": Mutation(
        "votes and acknowledgements leave before they are durable",
        (Edit(_GUARD + "release", "while held and held[0][0] <= durable:", "while held:"),),
        simulator="engines",
        seeds=(14,),
    ),
    "leader-counts-early": Mutation(
        "a leader counts itself before its own log is durable",
        (Edit(_GUARD + "_countable", "min(index, self._log.durable_index)", "index"),),
        simulator="engines",
        seeds=(234,),
    ),
    "old-term-committed": Mutation(
        "a leader commits an entry of an earlier term by counting",
        (
            Edit(
                _CORE + "_onTick",
                "if commitTerm != self.__raftCurrentTerm:",
                "if commitTerm is None:",
            ),
        ),
        simulator="scene",
    ),
    "voter-compares-nothing": Mutation(
        "a vote goes to a candidate whose log is behind",
        (
            Edit(
                _CORE + "_SyncObj__onMessageReceived",
                "lastLogIdx < self.__getCurrentLogIndex()",
                "lastLogIdx is None",
            ),
            Edit(
                _CORE + "_SyncObj__onMessageReceived",
                "if lastLogTerm < self.__getCurrentLogTerm():",
                "if lastLogTerm is None:",
            ),
            Edit(
                _GUARD + "_receive_pre_vote_request",
                "and (message.last_term, message.last_index) >= (self._log.term_at(last), last)",
                "",
            ),
        ),
        simulator="engines",
        seeds=(1, 2),
    ),
    "two-votes": Mutation(
        "a node votes again in a term",
        (
            Edit(
                _CORE + "_SyncObj__onMessageReceived",
                "if self.__votedForNodeId is not None:",
                "if self.__selfNode is None:",
            ),
            Edit(
                _STORAGE + "log:GroupLog.save_vote",
                "or (term == self.term and self.voted_for is not None)",
                "",
            ),
        ),
        simulator="engines",
        seeds=(9,),
    ),
    "appended-anywhere": Mutation(
        "a follower does not compare what comes before an append",
        (
            Edit(
                _CORE + "_SyncObj__onMessageReceived",
                "if prevEntries[0][2] != prevLogTerm:",
                "if prevEntries[0] is None:",
            ),
        ),
        simulator="engines",
        seeds=(1,),
    ),
    "torn-flush-accepted": Mutation(
        "recovery takes the whole part of a torn flush",
        (
            Edit(
                _STORAGE + "segments:SegmentReader.flushes",
                "if offset != end:",
                "if not records and offset != end:",
            ),
        ),
        simulator="scene",
    ),
    "failed-sync-trusted": Mutation(
        "what a failed sync lost is taken for durable after a restart",
        (
            Edit(
                _STORAGE + "recovery:_cut_tail",
                "file.write_again(reader.durable, reader.data[reader.durable : reader.end])",
                "pass",
            ),
        ),
        kinds=("disk-error", "outage", "power"),
        seeds=(18, 1),
    ),
    "snapshot-forgets-sessions": Mutation(
        "a snapshot has no table of sessions",
        (
            Edit(
                "leveret.consensus.manifest:Manifest.encode",
                "self.sessions.encode()",
                "SessionTable().encode()",
            ),
        ),
        kinds=("kill", "kill-leader", "reset", "stop"),
        seeds=(0,),
    ),
    "snapshot-forgets-mark": Mutation(
        "a snapshot has no marks of redelivery",
        (
            Edit(
                "leveret.broker.queues.state:QueueState.from_wire",
                'state.mark = cast("int", mark)',
                "del mark",
            ),
        ),
        kinds=("kill-leader", "stop", "kill-two"),
        seeds=(10,),
    ),
    "trimmed-too-early": Mutation(
        "the log is trimmed before a snapshot covers it",
        (
            Edit(
                _GROUP + "_trim",
                "min(self._snapshot_index - 1, self._engine.safe_index)",
                "self.applied_index - 1",
            ),
        ),
        kinds=("kill", "outage", "stop"),
        seeds=(0,),
    ),
    "repeats-admitted": Mutation(
        "a batch that was sent again is applied again",
        (
            Edit(
                _SESSIONS + "SessionTable.admit",
                "if batch.boot < boot or batch.sequence != last + 1:",
                "if batch.boot < boot or batch.sequence > last + 1:",
            ),
            Edit(
                _SESSIONS + "Intake.offer",
                "if batch.sequence != expected:",
                "if batch.sequence > expected:",
            ),
        ),
        kinds=("reset", "kill-leader", "isolate", "pause-leader"),
        seeds=(2,),
    ),
    "not-sent-again": Mutation(
        "what was lost on the way to a leader is not sent again",
        (
            Edit(
                _SESSIONS + "Outbox.rewind",
                "self._sent = max(sequence - 1, self._last_sequence - len(self._pending))",
                "return",
            ),
        ),
        kinds=("reset", "kill-leader", "isolate", "forget"),
        seeds=(0,),
    ),
    "confirmed-before-commit": Mutation(
        "a publish is confirmed when it is submitted",
        (
            Edit(
                _QUEUE + "_submit_runs",
                "self._log.submit(command, partial(self._stored, runs))",
                "self._log.submit(command, lambda _: None)\nself._stored(runs, None)",
            ),
        ),
        kinds=("kill-leader", "kill-two", "outage", "isolate"),
        seeds=(6,),
    ),
    "stale-reads": Mutation(
        "a passive declare does not wait for a barrier",
        (
            Edit(
                "leveret.catalog.catalog:Catalog.barrier",
                "if self._is_barrier_under_way:",
                "return\nif self._is_barrier_under_way:",
            ),
        ),
        kinds=("isolate", "bridge", "one-way", "pause-leader"),
        seeds=(67,),
    ),
    "settled-beside-the-log": Mutation(
        "acknowledgements are not submitted to the log",
        (
            Edit(
                _QUEUE + "_submit_settled",
                "self._log.submit(machine.settle",
                "(lambda *_, **__: None)(machine.settle",
            ),
        ),
        kinds=("kill-leader",),
        seeds=(0,),
    ),
    "settled-with-a-lost-node": Mutation(
        "what a lost node said to be settling stays so",
        (
            Edit(
                "leveret.broker.queues.lead:Lead.forget_node",
                "self.dispatcher.lose_node(node)",
                "pass",
            ),
        ),
        kinds=("kill", "isolate", "one-way", "reset"),
        seeds=(14,),
    ),
    "mark-ignored": Mutation(
        "a new leader takes everything for never delivered",
        (
            Edit(
                _DISPATCH + "__init__",
                "self._suspect_below = state.mark",
                "self._suspect_below = 0",
            ),
        ),
        kinds=("kill-leader", "pause-leader", "stop"),
        seeds=(2,),
    ),
    "delivered-beyond-the-mark": Mutation(
        "messages are delivered before the mark covers them",
        (
            Edit(
                _DISPATCH + "_deliverable",
                "self._pass_to(sequence)",
                "yield Delivery(sequence, location, redelivered=False)\ncontinue",
            ),
        ),
        simulator="scene",
    ),
    "given-back-unmarked": Mutation(
        "a message that comes back is not marked",
        (
            Edit(
                _DISPATCH + "_file",
                "self._returned[sequence] = delivered or sequence < self._suspect_below",
                "self._returned[sequence] = False",
            ),
        ),
        kinds=("no-clients", "kill"),
        seeds=(0,),
    ),
    "reader-skips-one": Mutation(
        "a new leader has the readers of a stream go on one offset too late",
        (Edit(_STREAM + "_resolve", "found = sequence", "found = sequence + 1"),),
        kinds=_LEADERS,
        seeds=(8,),
    ),
    "reader-holds-nothing": Mutation(
        "a new leader takes a reader for one with all its room",
        (
            Edit(
                _STREAM + "serve",
                "reader.held.update(dict.fromkeys(held, 0))",
                "pass",
            ),
        ),
        kinds=_LEADERS,
        seeds=(61,),
    ),
    "limit-takes-one-more": Mutation(
        "a stream's limit ends one message more than it must",
        (Edit(_STREAM + "_behind_too_much", "behind = sequence", "behind = sequence + 1"),),
        kinds=_LEADERS,
        seeds=(9,),
    ),
    "numbers-forgotten": Mutation(
        "a snapshot has no numbers of publishers",
        (
            Edit(
                "leveret.broker.queues.state:QueueState.from_wire",
                "state.publishers = Publishers.from_wire",
                "del publishers  # ",
            ),
        ),
        kinds=("kill", "outage", "stop", "reset"),
        seeds=(8,),
    ),
}


class DoesNotFit(Exception):
    """An edit's old text is not in the product any more; say it in its new words."""


@contextmanager
def mutated(name: str) -> Iterator[None]:
    """Plant a mistake for the length of a context; none if the name is empty.

    Raises:
        DoesNotFit: the product has changed there.
    """
    edits = MUTATIONS[name].edits if name else ()
    originals: list[tuple[FunctionType, CodeType]] = []
    try:
        for edit in edits:
            function = find(edit)
            originals.append((function, function.__code__))
            _compile(function, edit)
        # Several edits of one function are made one after the other, on the text so far.
        yield
    finally:
        for function, code in reversed(originals):
            function.__code__ = code
            _texts.pop(function, None)


_texts: dict[FunctionType, str] = {}
"""The source of functions that are edited now."""


def find(edit: Edit) -> FunctionType:
    """Return the function that an edit is for."""
    module, _, path = edit.place.partition(":")
    found: object = import_module(module)
    for name in path.split("."):
        found = vars(found)[name]
    if isinstance(found, classmethod):
        found = found.__func__
    assert isinstance(found, FunctionType), edit.place
    return found


def _compile(function: FunctionType, edit: Edit) -> None:
    """Give a function the code of its edited source."""
    text = _texts.get(function) or textwrap.dedent(inspect.getsource(function))
    lines = [line for line in text.splitlines() if edit.old in line]
    if len(lines) != 1:
        raise DoesNotFit(f"{edit.place} has {len(lines)} lines with {edit.old!r}")
    indent = lines[0][: len(lines[0]) - len(lines[0].lstrip())]
    new = edit.new.replace("\n", "\n" + indent)
    text = _texts[function] = text.replace(edit.old, new)
    # In a class of the same name, so that private names are found.
    owner, _, name = function.__qualname__.rpartition(".")
    head = f"from __future__ import annotations\nclass {owner or '_Module'}:\n"
    namespace = dict(vars(sys.modules[function.__module__]))
    exec(compile(head + textwrap.indent(text, "    "), edit.place, "exec"), namespace)  # noqa: S102 - our own text
    made = vars(namespace[owner or "_Module"])[
        name if name in vars(namespace[owner or "_Module"]) else f"_{owner}{name}"
    ]
    if isinstance(made, classmethod):
        made = made.__func__
    function.__code__ = made.__code__
