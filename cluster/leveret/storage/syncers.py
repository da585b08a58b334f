"""Syncing a file without stopping the loop.

Two ways, chosen by probing once at start (see docs/decisions/0003-fsync-by-kernel-aio.md):

* `KernelSyncer`: Linux kernel AIO. `io_submit` hands the fdatasync to a worker inside the kernel,
  completion raises an eventfd that trio waits for. No Python thread is involved, so no thread has
  to win the GIL back from a busy loop.
* `ThreadSyncer`: one thread that sits in fdatasync, where the kernel has no AIO.
"""

from __future__ import annotations

import ctypes
import os
import platform
import queue
import select
import struct
import sys
import tempfile
import threading
from typing import Protocol

import outcome
import trio

from leveret.storage.descriptors import SCARCE

_PROBE_S = 5.0
_EVENTS_MAX = 64

# include/uapi/linux/aio_abi.h
_IOCB = struct.Struct("<QIiHhIQQqQII")
_IO_EVENT = struct.Struct("<QQqq")
_OPCODE_FSYNC = 2
_OPCODE_FDSYNC = 3
_FLAG_RESFD = 1


class _Numbers:
    """System call numbers of one architecture (setup, destroy, getevents, submit)."""

    def __init__(self, setup: int, destroy: int, getevents: int, submit: int) -> None:
        self.setup, self.destroy = setup, destroy
        self.getevents, self.submit = getevents, submit


_NUMBERS = {
    "x86_64": _Numbers(206, 207, 208, 209),
    "aarch64": _Numbers(0, 1, 4, 2),
}


class Syncer(Protocol):
    """Brings what was written to a file descriptor onto the disk."""

    async def sync(self, fd: int, *, whole: bool = False) -> None:
        """Wait until the data of `fd` is durable (with `whole`, also all metadata: for folders).

        A checkpoint. May run for several descriptors at a time. On Cancelled the sync may still
        be under way; nothing may be concluded from it.

        Raises:
            OSError: the disk failed; what was written since the last sync is in doubt for ever.
        """

    def close(self) -> None:
        """Give back the system's resources."""


class KernelSyncer:
    """Syncs by Linux kernel AIO.

    Raises:
        OSError: this kernel, container or filesystem does not do it (found by a real sync).
    """

    def __init__(self, folder: str) -> None:
        numbers = _NUMBERS.get(platform.machine()) if sys.platform == "linux" else None
        if numbers is None or sys.byteorder != "little" or ctypes.sizeof(ctypes.c_void_p) != 8:
            raise OSError("kernel AIO is not known for this machine")
        self._numbers = numbers
        # PyDLL keeps the GIL: these calls return in microseconds, and releasing the GIL around
        # them would hand it to another thread for up to a switch interval (5 ms).
        self._syscall = ctypes.PyDLL(None, use_errno=True).syscall
        self._syscall.restype = ctypes.c_long
        self._context = ctypes.c_ulong(0)
        self._call(numbers.setup, ctypes.c_uint(_EVENTS_MAX), ctypes.byref(self._context))
        self._events = ctypes.create_string_buffer(_IO_EVENT.size * _EVENTS_MAX)
        self._no_wait = ctypes.create_string_buffer(struct.pack("<qq", 0, 0), 16)
        self._results: dict[int, int] = {}
        self._waiting: set[int] = set()
        self._next = 1
        # One eventfd for each sync under way, because only one task may wait for one descriptor.
        # There is one from the start: clients may have all descriptors when the next is wanted.
        self._idle_eventfds: list[int] = []
        self._under_way = 0
        self._has_idle = trio.lowlevel.ParkingLot()
        try:
            self._idle_eventfds.append(_new_eventfd())
            self._probe(folder)
        except BaseException:
            self.close()
            raise

    async def sync(self, fd: int, *, whole: bool = False) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        eventfd = await self._take_eventfd()
        self._under_way += 1
        try:
            result = await self._sync_with(eventfd, fd, whole=whole)
        finally:
            self._under_way -= 1
            self._has_idle.unpark()
        if result < 0:
            raise OSError(-result, os.strerror(-result))

    async def _sync_with(self, eventfd: int, fd: int, *, whole: bool) -> int:
        ticket = self._submit(fd, eventfd, _OPCODE_FSYNC if whole else _OPCODE_FDSYNC)
        try:
            await trio.lowlevel.wait_readable(eventfd)
            os.eventfd_read(eventfd)
            result = self._take(ticket)
        except BaseException:
            # The kernel holds its own references to both descriptors; the late result is dropped.
            self._waiting.discard(ticket)
            os.close(eventfd)
            raise
        self._idle_eventfds.append(eventfd)
        return result

    async def _take_eventfd(self) -> int:
        """Return an idle one or a new one; without a descriptor for it, wait for another sync."""
        while not self._idle_eventfds:
            try:
                return _new_eventfd()
            except OSError as error:
                if error.errno not in SCARCE or not self._under_way:
                    raise
            await self._has_idle.park()
        return self._idle_eventfds.pop()

    def close(self) -> None:
        """Give back the kernel's context; waits for syncs still under way."""
        if self._context.value:
            self._call(self._numbers.destroy, self._context)
            self._context.value = 0
        for eventfd in self._idle_eventfds:
            os.close(eventfd)
        self._idle_eventfds.clear()

    def _submit(self, fd: int, eventfd: int, opcode: int) -> int:
        ticket = self._next
        self._next += 1
        # The kernel copies the block while it submits, so it need not outlive the call.
        block = ctypes.create_string_buffer(
            _IOCB.pack(ticket, 0, 0, opcode, 0, fd, 0, 0, 0, 0, _FLAG_RESFD, eventfd), _IOCB.size
        )
        blocks = (ctypes.c_void_p * 1)(ctypes.addressof(block))
        self._call(self._numbers.submit, self._context, ctypes.c_long(1), blocks)
        self._waiting.add(ticket)
        return ticket

    def _take(self, ticket: int) -> int:
        """Return the result of a finished sync; store those of others that finished too."""
        count = self._call(
            self._numbers.getevents,
            self._context,
            ctypes.c_long(0),
            ctypes.c_long(_EVENTS_MAX),
            self._events,
            self._no_wait,
        )
        for at in range(count):
            done, _, result, _ = _IO_EVENT.unpack_from(self._events, at * _IO_EVENT.size)
            if done in self._waiting:
                self._waiting.discard(done)
                self._results[done] = result
        return self._results.pop(ticket)

    def _call(self, number: int, *arguments: object) -> int:
        result = int(self._syscall(ctypes.c_long(number), *arguments))
        if result < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        return result

    def _probe(self, folder: str) -> None:
        """Sync one real file, so that a kernel that only pretends is found out at start."""
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"probe")
            file.flush()
            (eventfd,) = self._idle_eventfds
            ticket = self._submit(file.fileno(), eventfd, _OPCODE_FDSYNC)
            poll = select.poll()
            poll.register(eventfd, select.POLLIN)
            if not poll.poll(_PROBE_S * 1000):
                raise OSError("kernel AIO took the probe and never finished it")
            os.eventfd_read(eventfd)
            result = self._take(ticket)
            if result < 0:
                raise OSError(-result, os.strerror(-result))


class ThreadSyncer:
    """Syncs in one thread of its own.

    One thread for all calls instead of `trio.to_thread` for each: 115 against 272 µs CPU.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="leveret-sync", daemon=True)
        self._thread.start()

    async def sync(self, fd: int, *, whole: bool = False) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        job = _Job(fd, whole=whole)
        self._jobs.put(job)

        def abort(_: object) -> trio.lowlevel.Abort:
            job.abandoned = True
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def close(self) -> None:
        """End the thread; waits for the sync under way."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.result = outcome.capture(os.fsync if job.whole else _fdatasync, job.fd)
            try:
                job.token.run_sync_soon(job.finish)
            except trio.RunFinishedError:
                continue  # the loop is gone, and with it whoever waited


class _Job:
    """One sync on its way through the thread and back."""

    def __init__(self, fd: int, *, whole: bool) -> None:
        self.fd = fd
        self.whole = whole
        self.token = trio.lowlevel.current_trio_token()
        self.task = trio.lowlevel.current_task()
        self.abandoned = False
        self.result: outcome.Value[None] | outcome.Error = outcome.Value(None)

    def finish(self) -> None:
        if not self.abandoned:
            trio.lowlevel.reschedule(self.task, self.result)


def pick_syncer(folder: str) -> Syncer:
    """Return the best syncer that works in `folder`."""
    try:
        return KernelSyncer(folder)
    except OSError:
        return ThreadSyncer()


def _new_eventfd() -> int:
    return os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)


def _fdatasync(fd: int) -> None:
    # macOS has no fdatasync.
    getattr(os, "fdatasync", os.fsync)(fd)
