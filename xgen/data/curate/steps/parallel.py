"""A step in several processes of this machine: each does a shard, as a job of an array does."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from xgen.data.curate.steps.run import Shard, Watch, run_step
from xgen.data.errors import InterruptedBuildError, StoreError
from xgen.data.progress import Progress
from xgen.spec.curate import Curate

_POLL = 0.2  # seconds
_counters: dict[str, Any] = {}  # of this process
_Fault = tuple[bool, str, str, str]  # a StoreError on its way out of a process


def run_shards(job: Curate, step: str, workers: int, progress: Progress) -> None:
    """Run a whole step in `workers` processes (0: one for each core this process may use; 1: this one).

    Raises StoreError (InterruptedBuildError where the same call would go on), and OSError.
    """
    workers = workers or len(os.sched_getaffinity(0))
    if workers == 1:
        num_bytes = 0

        def tick(more: int) -> None:
            nonlocal num_bytes
            num_bytes += more
            progress(f"{step}: MB", num_bytes // 1_000_000, 0)

        run_step(job, step, watch=Watch(items=lambda done, total: progress(step, done, total), tick=tick))
        return
    context = multiprocessing.get_context("spawn")
    counters = context.Array("Q", 3 * workers)  # of each: items done, items, bytes
    pool = ProcessPoolExecutor(workers, context, initializer=_start, initargs=(os.getpid(), counters))
    try:
        waiting: set[Future[_Fault | None]] = {
            pool.submit(_shard, job, step, number, workers) for number in range(workers)
        }
        while waiting:
            finished, waiting = wait(waiting, _POLL, FIRST_COMPLETED)
            for future in finished:
                if fault := future.result():
                    raise (InterruptedBuildError if fault[0] else StoreError)(*fault[1:])
            values: list[int] = counters[:]
            progress(step, sum(values[0::3]), sum(values[1::3]))
            progress(f"{step}: MB", sum(values[2::3]) // 1_000_000, 0)
    except BrokenProcessPool:
        what = "a worker process died (killed, or out of memory)"
        fix = "run it again: it goes on where it was; for memory, with fewer --workers"
        raise InterruptedBuildError(job.work_folder, what, fix) from None
    finally:
        for process in list((pool._processes or {}).values()):
            if process.is_alive():
                process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)


def _start(parent: int, counters: Any) -> None:
    """A worker ends with its parent, and does not hear Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    _counters["shared"] = counters


def _shard(job: Curate, step: str, number: int, count: int) -> _Fault | None:
    counters = _counters["shared"]
    last = time.monotonic()
    num_bytes = 0

    def items(done: int, total: int) -> None:
        counters[3 * number], counters[3 * number + 1] = done, total

    def tick(more: int) -> None:
        nonlocal last, num_bytes
        num_bytes += more
        if time.monotonic() - last > _POLL:
            counters[3 * number + 2], last = num_bytes, time.monotonic()

    try:
        run_step(job, step, Shard(number, count), Watch(items=items, tick=tick))
    except StoreError as error:
        return isinstance(error, InterruptedBuildError), error.place, error.what, error.fix
    return None
