"""One run from its beginning to its end: the queues, the processes of clients, the judgement."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from typing import IO, Final

import msgspec
import trio

from leveret.client import ClientError, Connection, connect

from .errors import Kind, PerfError, explained
from .lines import lines_of
from .plan import Plan
from .processes import Processes, Usage
from .receipts import Faults, Verdict, judge
from .reports import Command, Consumed, Failed, Finished, Interval, Produced, Ready, Report
from .result import Frame, Phase, Result, frame_of
from .tally import Clock
from .topology import Made, prepare, remove

WORKER: Final = (sys.executable, "-m", "leveret.perf.worker")
_BEGIN_IN_S: Final = 0.1
"""Between the word to begin and the beginning: time for it to reach all workers."""
_REMOVE_WITHIN_S: Final = 5.0
_GIVE_UP_AFTER_S: Final = 60.0
_REPORT: Final = msgspec.json.Decoder(Report)
_NEARLY: Final = 0.1
"""The part of an interval by which timers may be late."""
_LAST: Final = sys.maxsize


class _Worker:
    """A process of clients, and what it has told."""

    def __init__(self, process: trio.Process, complaints: IO[bytes]) -> None:
        self.process = process
        self.complaints = complaints
        self.is_ready = False
        self.reported = 0
        """The number of its last interval; all when it has finished."""
        self.produced: Produced | None = None
        self.has_consumed = False
        self.finished: Finished | None = None

    async def say(self, line: object) -> None:
        """Send it a line; one that has ended is found out by its silence."""
        assert self.process.stdin is not None
        with suppress(trio.BrokenResourceError):
            await self.process.stdin.send_all(msgspec.json.encode(line) + b"\n")

    def complaint(self) -> str:
        """The end of what it wrote on standard error."""
        self.complaints.seek(0)
        return self.complaints.read().decode(errors="replace")[-4000:]


class Run:
    """A run of a plan; used once.

    wall_ns: the wall clock. on_frame: told each interval as it is known. on_begin: told the
    broker's name when the load begins.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        wall_ns: Callable[[], int],
        on_frame: Callable[[Frame], None] = lambda _: None,
        on_begin: Callable[[str], None] = lambda _: None,
        program: Sequence[str] = WORKER,
    ) -> None:
        self._plan = plan
        self._wall_ns = wall_ns
        self._on_frame = on_frame
        self._on_begin = on_begin
        self._program = list(program)
        self._workers: list[_Worker] = []
        self._changed = trio.Event()
        self._is_stopped = False
        self._preparing = trio.CancelScope()
        self._load_ended_s = float("inf")
        self._pending: dict[int, Interval] = {}
        self._frames: list[Frame] = []
        self._consumed = 0
        self._moves = 0
        """Intervals in which messages came, or may not have come for want of a broker."""
        self._is_disturbed = False
        self._processes: Processes | None = None
        self._usage: Usage | None = None
        self._total = Interval(0)
        self._clock: Clock | None = None
        self._began_at = 0.0

    def stop(self) -> None:
        """End the load now; what must arrive may still do so. Before the load, end all."""
        self._is_stopped = True
        self._changed.set()
        if self._clock is None:
            self._preparing.cancel()

    async def run(self) -> Result:
        """Do it.

        Raises:
            PerfError: it cannot be done.
        """
        try:
            with self._preparing:
                return await self._run()
            raise PerfError(Kind.STOPPED, "stopped before the load began")
        except (ClientError, BaseExceptionGroup) as error:
            first: BaseException = error
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            if isinstance(first, ClientError):
                raise explained(first) from None
            if isinstance(first, PerfError):
                raise first from None
            raise

    async def _run(self) -> Result:
        plan = self._plan
        connection = connect(plan.urls, name="leveret perf", give_up_after_s=_GIVE_UP_AFTER_S)
        async with connection:
            made = await prepare(connection, plan)
            try:
                await self._work(connection)
                return self._result(connection)
            finally:
                if not plan.is_kept:
                    await _remove(connection, made)

    async def _work(self, connection: Connection) -> None:
        """Start the workers, and lead them through the run."""
        async with trio.open_nursery() as nursery:
            for process in range(self._plan.processes):
                await nursery.start(self._run_worker, process)
            await self._until(lambda: all(one.is_ready for one in self._workers))
            self._begin(connection)
            assert self._clock is not None
            begin = Command("begin", self._clock.now_ns() + int(_BEGIN_IN_S * 1e9))
            self._began_at = self._clock.trio_time(begin.at_ns)
            await self._say_to_all(begin)
            await self._until_load_ends()
            await self._say_to_all(Command("stop producing"))
            producing = [one for one in self._workers if self._produces(one)]
            await self._until(lambda: all(one.produced is not None for one in producing))
            await self._drain()
            await self._say_to_all(Command("stop"))
            await self._until(lambda: all(one.finished is not None for one in self._workers))
            self._emit()

    def _begin(self, connection: Connection) -> None:
        self._clock = Clock(self._wall_ns)
        addresses = [_host_and_port(address) for address in connection.addresses]
        self._processes = Processes(addresses)
        self._usage = self._processes.usage()
        self._on_begin(_name_of(connection))

    async def _until_load_ends(self) -> None:
        plan = self._plan
        deadline = self._began_at + plan.warm_up_s + plan.duration_s if plan.duration_s else None
        producing = [one for one in self._workers if self._produces(one)]
        consuming = [one for one in self._workers if self._consumes(one)]

        def is_over() -> bool:
            if self._is_stopped:
                return True
            if producing:
                return all(one.produced is not None for one in producing)
            return all(one.has_consumed for one in consuming)

        with trio.move_on_at(float("inf") if deadline is None else deadline):
            await self._until(is_over)
        self._load_ended_s = trio.current_time() - self._began_at

    async def _drain(self) -> None:
        """Wait until all that was published has come, or nothing more does."""
        plan = self._plan
        wants_all = plan.verifies or (plan.is_counted and not self._is_stopped)
        if not (plan.producers and plan.consumers and wants_all):
            return
        expected = sum(one.produced.arrivals for one in self._workers if one.produced is not None)
        # After a loss some come twice: then only silence says that no more come.
        while self._is_disturbed or self._consumed < expected:
            with trio.move_on_after(plan.drain_s) as waiting:
                await self._until(self._has_moved(since=self._moves))
            if waiting.cancelled_caught:
                return

    def _has_moved(self, *, since: int) -> Callable[[], bool]:
        return lambda: self._moves > since

    # The workers

    async def _run_worker(self, process: int, task_status: trio.TaskStatus[None]) -> None:
        with tempfile.TemporaryFile() as complaints:
            program = await trio.lowlevel.open_process(
                [*self._program, str(process)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                # Ctrl-C is for the command alone, which then tells the workers.
                process_group=0,
            )
            worker = _Worker(program, complaints)
            self._workers.append(worker)
            task_status.started()
            try:
                await worker.say(self._plan)
                assert program.stdout is not None
                async with aclosing(lines_of(program.stdout)) as lines:
                    async for line in lines:
                        self._take(worker, _REPORT.decode(line))
                await program.wait()
                if worker.finished is None or program.returncode:
                    raise PerfError(
                        Kind.BROKEN,
                        f"a process of clients ended with code {program.returncode}:\n"
                        f"{worker.complaint()}",
                    )
            finally:
                if program.returncode is None:
                    program.kill()
                with trio.CancelScope(shield=True):
                    await program.wait()

    def _take(self, worker: _Worker, report: Report) -> None:
        match report:
            case Ready():
                worker.is_ready = True
            case Interval():
                worker.reported = report.number
                self._consumed += report.consumed
                # While one looks for a broker, silence says nothing.
                self._moves += report.consumed > 0 or report.disconnected > 0
                if report.reconnects or report.cancelled:
                    self._is_disturbed = True
                pending = self._pending.get(report.number)
                if pending is None:
                    self._pending[report.number] = report
                else:
                    pending.beside(report)
                self._emit()
            case Produced():
                worker.produced = report
            case Consumed():
                worker.has_consumed = True
            case Finished():
                worker.finished = report
                worker.reported = _LAST
            case Failed():
                raise PerfError(Kind(report.kind), report.text)
        self._changed.set()

    def _produces(self, worker: _Worker) -> bool:
        return len(self._plan.producers_in(self._workers.index(worker))) > 0

    def _consumes(self, worker: _Worker) -> bool:
        return len(self._plan.consumers_in(self._workers.index(worker))) > 0

    async def _say_to_all(self, command: Command) -> None:
        for worker in self._workers:
            await worker.say(command)

    async def _until(self, is_so: Callable[[], bool]) -> None:
        """Wait until the workers' reports, or `stop`, have made something so."""
        while not is_so():
            self._changed = trio.Event()
            await self._changed.wait()

    # The figures

    def _emit(self) -> None:
        """Make frames of the intervals that all workers have reported."""
        complete = min(worker.reported for worker in self._workers)
        for number in sorted(self._pending):
            if number <= complete:
                self._add_frame(self._pending.pop(number))

    def _add_frame(self, interval: Interval) -> None:
        length_s = self._plan.interval_s
        began_s = (interval.number - 1) * length_s
        phase: Phase
        if interval.number * length_s <= self._plan.warm_up_s:
            phase = "warm-up"
        elif began_s >= self._load_ended_s - _NEARLY * length_s:
            phase = "drain"
        else:
            phase = "load"
        if phase != "warm-up":
            self._total.then(interval)
        assert self._processes is not None
        usage, before = self._processes.usage(), self._usage
        self._usage = usage
        at_s = min(trio.current_time() - self._began_at, interval.number * length_s)
        frame = frame_of(
            interval,
            at_s=at_s,
            span_s=max(0.0, at_s - began_s),
            phase=phase,
            broker_cpu_s=usage.cpu_s - before.cpu_s if usage and before else None,
            broker_memory_bytes=usage.memory_bytes if usage else None,
        )
        self._frames.append(frame)
        self._on_frame(frame)

    def _result(self, connection: Connection) -> Result:
        plan = self._plan
        produced = [one.produced for one in self._workers if one.produced is not None]
        finished = [one.finished for one in self._workers if one.finished is not None]
        published_until_s = max((one.published_until_s for one in produced), default=0.0)
        confirmed_until_s = max((one.confirmed_until_s for one in produced), default=0.0)
        consumed_until_s = max((one.consumed_at_s for one in finished), default=0.0)
        if plan.producers:
            consumed_until_s = max(consumed_until_s, published_until_s)
        elif not plan.messages:
            consumed_until_s = max((one.stopped_at_s for one in finished), default=0.0)
        behind_warm_up = [frame for frame in self._frames if frame.phase != "warm-up"]
        cpu_s = [one.broker_cpu_s for one in behind_warm_up if one.broker_cpu_s is not None]
        memory = [one.broker_memory_bytes for one in behind_warm_up if one.broker_memory_bytes]
        return Result(
            broker=_name_of(connection),
            guarantee=connection.guarantee,
            plan=plan,
            total=self._total,
            published_s=max(0.0, published_until_s - plan.warm_up_s),
            confirmed_s=max(0.0, confirmed_until_s - plan.warm_up_s),
            consumed_s=max(0.0, consumed_until_s - plan.warm_up_s),
            watched_s=sum(frame.span_s for frame in behind_warm_up),
            frames=self._frames,
            broker_pids=self._processes.pids if self._processes is not None else [],
            broker_cpu_s=sum(cpu_s) if cpu_s else None,
            broker_memory_bytes=max(memory, default=None),
            verdict=_verdict_of(plan, finished) if plan.verifies else None,
        )


def _verdict_of(plan: Plan, finished: Sequence[Finished]) -> Verdict:
    faults = Faults()
    for one in finished:
        faults.add(one.faults)
    sent = [
        (of_producer, plan.queues_of(of_producer.producer))
        for one in finished
        for of_producer in one.sent
    ]
    return judge(sent, [came for one in finished for came in one.came], faults)


async def _remove(connection: Connection, made: Made) -> None:
    """Delete what was made, whatever ended the run; a broker that is gone keeps it."""
    with trio.move_on_after(_REMOVE_WITHIN_S, shield=True), suppress(ClientError):
        await remove(connection, made)


def _name_of(connection: Connection) -> str:
    properties = connection.server_properties
    # Leveret's product is the one that it is compatible with; its own name stands beside it.
    broker, version = properties.get("broker"), properties.get("broker_version")
    if broker is None:
        broker, version = properties.get("product", "broker"), properties.get("version", "")
    return f"{broker} {version}".strip()


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
