"""One process of clients: `python -m leveret.perf.worker PROCESS`, told by lines what to do.

On standard input comes the plan, then commands; on standard output go reports (`reports`). The
end of the input is the end of the worker, so that it does not outlive who started it.
"""

from __future__ import annotations

import itertools
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Final

import msgspec
import trio

from leveret.client import ClientError, Connection, connect

from .consumer import Consumer
from .errors import explained
from .lines import lines_of
from .plan import Plan
from .producer import Producer
from .receipts import Receipts
from .reports import Command, Consumed, Failed, Finished, Produced, Ready, Report
from .tally import Clock, Tally

GIVE_UP_AFTER_S: Final = 60.0
"""Seconds without any broker after which a client gives up, and the run with it."""
_WITHOUT_BROKER: Final = ("DOWN", "SHAKING", "RESTORING")
_COMMAND: Final = msgspec.json.Decoder(Command)


class Worker:
    """The clients of one process, and what they are told.

    wall_ns: the wall clock. cpu_s: what the process has used of a processor, in seconds.
    tell: sends a report.
    """

    def __init__(
        self,
        plan: Plan,
        process: int,
        *,
        wall_ns: Callable[[], int],
        cpu_s: Callable[[], float],
        tell: Callable[[Report], None],
    ) -> None:
        self._plan = plan
        self._tell = tell
        self._cpu_s = cpu_s
        self._cpu_told_s = 0.0
        self._recoveries_told = 0
        self._tally = Tally(Clock(wall_ns))
        self._receipts = Receipts()
        self._producers = {n: Producer(plan, n, self._tally) for n in plan.producers_in(process)}
        self._consumers = {
            n: Consumer(plan, n, self._tally, self._receipts) for n in plan.consumers_in(process)
        }
        self._connections: dict[Producer | Consumer, Connection] = {}
        self._running: set[Producer | Consumer] = set()
        self._has_begun = trio.Event()
        self._is_stopped = trio.Event()

    async def run(self, commands: AsyncIterator[bytes]) -> None:
        """Connect, do as the commands say, and report, until told to stop or the input ends.

        Raises:
            ClientError: a broker, or what is needed there, is not to be had.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._obey, commands, nursery.cancel_scope)
            async with trio.open_nursery() as clients:
                for number, producer in self._producers.items():
                    await clients.start(self._run_client, "producer", number, producer)
                for number, consumer in self._consumers.items():
                    await clients.start(self._run_client, "consumer", number, consumer)
                self._tell(Ready())
                await self._has_begun.wait()
                nursery.start_soon(self._tick)
            await self._is_stopped.wait()
            nursery.cancel_scope.cancel()
            self._finish()

    async def _obey(self, commands: AsyncIterator[bytes], scope: trio.CancelScope) -> None:
        async for line in commands:
            command = _COMMAND.decode(line)
            if command.do == "begin":
                self._tally.began_at_ns = command.at_ns
                self._has_begun.set()
                continue
            for producer in self._producers.values():
                producer.stop()
            if command.do == "stop":
                for consumer in self._consumers.values():
                    consumer.stop()
                self._is_stopped.set()
        scope.cancel()

    async def _run_client(
        self,
        role: str,
        number: int,
        client: Producer | Consumer,
        task_status: trio.TaskStatus[None],
    ) -> None:
        plan = self._plan
        place = number if role == "producer" else plan.producers + number
        connection = connect(
            plan.urls_of(place),
            name=f"leveret perf {role} {number + 1}",
            give_up_after_s=GIVE_UP_AFTER_S,
        )
        confirms = role == "producer" and plan.window > 0
        async with connection, connection.channel(confirms=confirms) as channel:
            self._connections[client] = connection
            self._running.add(client)
            task_status.started()
            await self._has_begun.wait()
            await trio.sleep_until(self._tally.clock.trio_time(self._tally.began_at_ns))
            await client.run(channel)
        self._running.discard(client)
        self._tell_of_end(client)

    def _tell_of_end(self, client: Producer | Consumer) -> None:
        """Report that all producers, or all consumers, have ended."""
        if any(type(other) is type(client) for other in self._running):
            return
        if isinstance(client, Consumer):
            self._tell(Consumed())
            return
        producers = self._producers.values()
        self._tell(
            Produced(
                published_until_s=max(producer.published_until_s for producer in producers),
                confirmed_until_s=max(producer.confirmed_until_s for producer in producers),
                arrivals=sum(
                    producer.accepted * self._plan.consumed_queues_of(number)
                    for number, producer in self._producers.items()
                ),
            )
        )

    async def _tick(self) -> None:
        """Report each interval when it ends."""
        began_at = self._tally.clock.trio_time(self._tally.began_at_ns)
        self._cpu_told_s = self._cpu_s()
        for number in itertools.count(1):
            await trio.sleep_until(began_at + number * self._plan.interval_s)
            self._report()

    def _report(self) -> None:
        interval = self._tally.take()
        statistics = {client: one.statistics() for client, one in self._connections.items()}
        recoveries = sum(one.recoveries for one in statistics.values())
        cpu_s = self._cpu_s()
        interval.reconnects = recoveries - self._recoveries_told
        interval.client_cpu_s = interval.busiest_cpu_s = cpu_s - self._cpu_told_s
        interval.unconfirmed = sum(one.unconfirmed for one in statistics.values())
        for client in self._running:
            interval.disconnected += statistics[client].state in _WITHOUT_BROKER
            interval.blocked += isinstance(client, Producer) and bool(statistics[client].blocked)
        self._recoveries_told, self._cpu_told_s = recoveries, cpu_s
        self._tell(interval)

    def _finish(self) -> None:
        """Report what is left, and what the judge needs."""
        self._report()
        tally, consumers = self._tally, self._consumers.values()
        verifies = self._plan.verifies
        self._tell(
            Finished(
                consumed_at_s=max(0.0, tally.seconds_of(tally.last_consumed_at_ns)),
                stopped_at_s=max((consumer.stopped_at_s for consumer in consumers), default=0.0),
                faults=self._receipts.faults,
                sent=[one.sent() for one in self._producers.values()] if verifies else [],
                came=self._receipts.came() if verifies else [],
            )
        )


def _print(report: Report) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
    sys.stdout.buffer.flush()


async def _work(process: int) -> None:
    stream = trio.lowlevel.FdStream(os.dup(sys.stdin.fileno()))
    async with stream, aclosing(lines_of(stream)) as lines:
        plan = msgspec.json.decode(await anext(lines), type=Plan)
        # The one reading of the wall clock: times are compared between processes.
        worker = Worker(plan, process, wall_ns=time.time_ns, cpu_s=time.process_time, tell=_print)
        await worker.run(lines)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def main() -> None:
    """Be one process of clients."""
    # Ctrl-C is for who started us, and who then asks us to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Losses are counted and shown; lines of the client's log would go through the table.
    logging.getLogger("leveret.client").setLevel(logging.CRITICAL)
    try:
        trio.run(_work, int(sys.argv[1]))
    except (ClientError, BaseExceptionGroup) as error:
        first = _first(error)
        if not isinstance(first, ClientError):
            raise
        failure = explained(first)
        _print(Failed(failure.kind.value, str(failure)))


if __name__ == "__main__":
    main()
