"""The process between a trainer and its verifiers: `python -m xgen.posttrain.rewards.server FD`.

It holds the queue, gives work out, kills by the clock and by the memory, and replaces what has died. It imports no
torch and has one thread, so that it may fork; it runs nothing that an answer says. Its own end takes all with it.
"""

from __future__ import annotations

import json
import select
import shutil
import signal
import socket
import struct
import sys
import tempfile
import time
from collections import deque
from contextlib import suppress
from dataclasses import asdict, dataclass, field

from xgen.posttrain.rewards import jail, kernel
from xgen.posttrain.rewards.wire import Channel, ClosedError
from xgen.posttrain.rewards.worker import LEAVING, PROFILES
from xgen.posttrain.rewards.zygotes import start_zygotes, unused_uids

HEARTBEAT = 1.0  # seconds
_TICK = 0.1  # seconds between looks at memory and processes
_START = 60.0  # seconds that a worker may take to be ready
_GRACE = 2.0  # seconds that a worker that keeps the time of its children itself may take longer
_AHEAD = 16  # verdicts that a worker has at most in front of it
_AT_ONCE = 16  # questions to reward models: they wait, they do not work
_CREDENTIALS = struct.Struct("3i")


@dataclass
class _Job:
    number: int
    body: bytes


@dataclass
class _Worker:
    profile: str
    channel: Channel
    uid: int
    until: float
    pid: int | None = None  # None: not ready
    jobs: deque[_Job] = field(default_factory=deque)
    began: float = 0.0  # of the first job
    is_leaving: bool = False  # it takes no more, by its own word


class Server:
    """One trainer's. `run` returns when the trainer is gone; raises RuntimeError when a zygote has died."""

    def __init__(self, channel: Channel, bounds: jail.Bounds, num_workers: int) -> None:
        self._channel, self._bounds, self._num_workers = channel, bounds, num_workers
        self._queues: dict[str, deque[_Job]] = {profile: deque() for profile in PROFILES}
        self._workers: list[_Worker] = []
        self._free_uids = deque(unused_uids(2 * (len(PROFILES) * num_workers + _AT_ONCE)))
        self._zygotes = start_zygotes(bounds, self._free_uids[0], channel)
        self._failed_starts = dict.fromkeys(PROFILES, 0)

    @property
    def isolation(self) -> jail.Isolation:
        return self._zygotes["code"].isolation

    def run(self) -> None:
        next_tick = next_beat = 0.0
        self._channel.send(0, json.dumps(asdict(self.isolation)).encode())
        while True:
            now = time.monotonic()
            if now >= next_beat:
                self._channel.send(0, b"")
                next_beat = now + HEARTBEAT
            if now >= next_tick:
                self._look_after()
                next_tick = now + _TICK
            self._kill_late(now)
            self._give_out()
            self._wait(min([next_beat, *([next_tick] if self._workers else []), *self._deadlines()]))

    # workers

    def _give_out(self) -> None:
        for profile, queue in self._queues.items():
            most = _AT_ONCE if profile == "model" else self._num_workers
            while queue and (worker := self._idle(profile, most)):
                now = time.monotonic()
                ahead = min(_AHEAD, max(1, len(queue) // (2 * most))) if profile in ("math", "pattern") else 1
                for _ in range(min(ahead, len(queue))):
                    worker.jobs.append(queue.popleft())
                worker.began, worker.until = now, now + self._seconds(profile)
                try:
                    for job in worker.jobs:
                        worker.channel.send(job.number, job.body)
                except ClosedError:
                    self._lost(worker)

    def _idle(self, profile: str, most: int) -> _Worker | None:
        """One that is ready for work; starts one where there may be more."""
        own = [worker for worker in self._workers if worker.profile == profile]
        for worker in own:
            if worker.pid is not None and not worker.jobs and not worker.is_leaving:
                return worker if self._may_begin(profile, most) else None
        starting = any(worker.pid is None for worker in own)
        if not starting and len(own) < most and self._may_begin(profile, most):
            self._start_worker(profile)
        return None

    def _may_begin(self, profile: str, most: int) -> bool:
        if profile == "model":
            return True
        return sum(bool(worker.jobs) for worker in self._workers if worker.profile != "model") < most

    def _start_worker(self, profile: str) -> None:
        here, there = socket.socketpair()
        here.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        uid = self._free_uids.popleft()
        zygote = self._zygotes[profile]
        try:
            socket.send_fds(zygote.control, [str(uid).encode()], [there.fileno()])
        except OSError as error:
            raise RuntimeError(f"the zygote of {profile} is gone") from error
        finally:
            there.close()
        self._workers.append(_Worker(profile, Channel(here), uid, time.monotonic() + _START))

    def _seconds(self, profile: str) -> float:
        return self._bounds.seconds + (_GRACE if profile in ("code", "model") else 0.0)

    def _deadlines(self) -> list[float]:
        return [worker.until for worker in self._workers if worker.jobs or worker.pid is None]

    # what happens

    def _wait(self, until: float) -> None:
        poller = select.poll()
        at = {self._channel.fileno(): self._read_trainer}
        poller.register(self._channel, select.POLLIN | (select.POLLOUT if self._channel.is_sending else 0))
        for worker in self._workers:
            poller.register(worker.channel, select.POLLIN | (select.POLLOUT if worker.channel.is_sending else 0))
            at[worker.channel.fileno()] = lambda worker=worker: self._read_worker(worker)  # type: ignore[misc]
        for zygote in self._zygotes.values():
            poller.register(zygote.control, select.POLLIN)
        for ready, events in poller.poll(max(until - time.monotonic(), 0) * 1000 + 1):
            if ready not in at:
                raise RuntimeError("a zygote is gone")
            if events & select.POLLOUT:
                self._flush(ready)
            if events & ~select.POLLOUT:
                at[ready]()

    def _flush(self, ready: int) -> None:
        if ready == self._channel.fileno():
            self._channel.flush()
        for worker in self._workers:
            if worker.channel.fileno() == ready:
                with suppress(ClosedError):  # told by its next read
                    worker.channel.flush()

    def _read_trainer(self) -> None:
        """A job's number holds its profile in its lowest three bits."""
        for number, body in self._channel.receive():
            self._queues[PROFILES[number & 7]].append(_Job(number, body))

    def _read_worker(self, worker: _Worker) -> None:
        try:
            if worker.pid is None:
                worker.pid = _process_of(worker.channel.socket)
                self._failed_starts[worker.profile] = 0
                return
            for number, body in worker.channel.receive():
                if number == LEAVING:
                    worker.is_leaving = True
                    continue
                if not worker.jobs or worker.jobs[0].number != number:
                    raise ClosedError  # it says what nobody asked
                worker.jobs.popleft()
                worker.began = time.monotonic()
                worker.until = worker.began + self._seconds(worker.profile)
                self._channel.send(number, body)
        except ClosedError:
            self._lost(worker)

    def _kill_late(self, now: float) -> None:
        for worker in [worker for worker in self._workers if now >= worker.until]:
            if worker.pid is None:
                self._lost(worker)
            elif worker.jobs:
                self._stop(worker, "timeout")

    def _look_after(self) -> None:
        """Of programs: memory and processes over all that they have started. And who has lost its worker is killed."""
        now = time.monotonic()
        for worker in list(self._workers):
            if worker.profile == "code" and worker.jobs and worker.pid and now - worker.began > _TICK:
                below = kernel.descendants(worker.pid)
                if sum(map(kernel.resident, below)) > self._bounds.memory:
                    self._stop(worker, "memory")
                elif len(below) > self._bounds.processes + 2:  # the tests', and what forks both
                    self._stop(worker, "crashed")
        if any(worker.pid is None for worker in self._workers):
            return
        known = {worker.pid for worker in self._workers if worker.pid}
        for zygote in self._zygotes.values():
            kernel.kill_descendants(zygote.pid, spare=known)

    def _stop(self, worker: _Worker, reason: str) -> None:
        """Kills it with all that it started. A program that took too much has not passed; a verifier has failed."""
        job = worker.jobs.popleft()
        is_fault = worker.profile == "code" and reason != "timeout"
        self._answer(job, reason, time.monotonic() - worker.began, is_fault)
        self._remove(worker)

    def _lost(self, worker: _Worker) -> None:
        """It has died, or cannot start."""
        if worker.jobs and not worker.is_leaving:
            job = worker.jobs.popleft()
            self._answer(job, "crashed", time.monotonic() - worker.began, False)
        elif worker.pid is None:
            self._failed_starts[worker.profile] += 1
            if self._failed_starts[worker.profile] >= 3:
                self._failed_starts[worker.profile] = 0
                for job in self._queues[worker.profile]:
                    self._answer(job, "error", 0.0, False, f"no verifier of the kind {worker.profile} could start")
                self._queues[worker.profile].clear()
        self._remove(worker)

    def _remove(self, worker: _Worker) -> None:
        """What it had not begun goes to the next one."""
        self._workers.remove(worker)
        self._queues[worker.profile].extendleft(reversed(worker.jobs))
        self._free_uids.append(worker.uid)
        if worker.pid is not None:
            kernel.kill_descendants(worker.pid)
            kernel.kill(worker.pid)
        worker.channel.close()
        if worker.profile == "code" and not self.isolation.is_jailed:
            jail.remove_folders_of(worker.uid)

    def _answer(self, job: _Job, reason: str, seconds: float, is_fault: bool, detail: str = "") -> None:
        said = {"score": 0.0 if is_fault else None, "failure": None if is_fault else reason}
        said |= {"fault": reason if is_fault else None, "detail": detail, "seconds": seconds}
        self._channel.send(job.number, json.dumps(said).encode())


def _process_of(end: socket.socket) -> int:
    """Who said that it is ready, by the kernel's word: it counts processes in its own way. Raises ClosedError."""
    data, ancillary, _, _ = end.recvmsg(1 << 10, socket.CMSG_SPACE(_CREDENTIALS.size))
    for _, kind, sent in ancillary:
        if data and kind == socket.SCM_CREDENTIALS:
            return int(_CREDENTIALS.unpack(sent[: _CREDENTIALS.size])[0])
    raise ClosedError


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C is the trainer's; its end is ours
    kernel.adopt_orphans()
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    asked = json.loads(sys.argv[2])
    server = Server(channel, jail.Bounds(**asked["bounds"]), asked["workers"])
    try:
        server.run()
    except ClosedError:  # the trainer is gone
        shutil.rmtree(tempfile.gettempdir(), ignore_errors=True)  # `ServerLink` has made it for us


if __name__ == "__main__":
    main()
