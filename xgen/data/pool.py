"""Processes that work on units. They end with their parent, however that ends."""

from __future__ import annotations

import ctypes
import errno
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xgen.data.errors import InterruptedBuildError, StoreError
from xgen.data.progress import Progress
from xgen.data.units import Unit

_POLL = 0.2  # seconds
_AGAIN = "run it again: it goes on where it was"

Tick = Callable[[int], None]  # is told bytes of text that are done


@dataclass(frozen=True)
class Work:
    """What is done to each unit: `begin(*arguments)` makes a worker's state once, `do(state, number, unit, tick)`
    leaves a folder in `building`. Functions of a module, for they are sent to processes."""

    building: Path
    begin: Callable[..., Any]
    arguments: tuple[Any, ...]
    do: Callable[[Any, int, Unit, Tick], None]


class StoppedError(Exception):
    """Told to stop: what is under way is left undone."""


@dataclass(frozen=True)
class _Failure:
    """A StoreError on its way out of a process: exceptions with arguments of their own do not travel well."""

    interrupted: bool
    place: str
    what: str
    fix: str

    def error(self) -> StoreError:
        return (InterruptedBuildError if self.interrupted else StoreError)(self.place, self.what, self.fix)


def work_through(
    work: Work,
    units: dict[int, Unit],
    total: int,
    workers: int,
    progress: Progress,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Do `units` in processes; `total` counts those that are done already, too.

    Raises StoreError for what is wrong with the input, InterruptedBuildError for the rest, and StoppedError.
    """
    if not units:
        return
    context = multiprocessing.get_context("spawn")
    done_bytes = context.Value("Q", 0)
    arguments = (os.getpid(), work, done_bytes)
    pool = ProcessPoolExecutor(min(workers, len(units)), context, initializer=_start, initargs=arguments)
    waiting: set[Future[_Failure | None]] = set()
    # The pool writes to workers that are gone, and the commands let a broken pipe end them without a word.
    at_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGPIPE, signal.SIG_IGN) if at_main else None
    try:
        with _deaf(at_main):
            waiting = {pool.submit(_do, number, unit) for number, unit in units.items()}
        while waiting:
            finished, waiting = wait(waiting, _POLL, FIRST_COMPLETED)
            failures = [failure for future in finished if (failure := future.result())]
            progress("units", total - len(waiting) - len(failures), total)
            progress("MB of text", int(done_bytes.value / 1e6), 0)
            if failures:
                raise failures[0].error()
            if waiting and stopped():
                raise StoppedError
    except BrokenProcessPool:
        what = "a worker process died (killed, or out of memory)"
        raise InterruptedBuildError(work.building, what, f"{_AGAIN}; for memory, with fewer --workers") from None
    finally:
        processes = list((pool._processes or {}).values())
        if waiting:
            for process in processes:
                process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)
        if at_main:
            signal.signal(signal.SIGPIPE, before)


@contextmanager
def _deaf(at_main: bool) -> Iterator[None]:
    """Processes started here never hear Ctrl-C, not even before they can say so themselves."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if at_main else None
    try:
        yield
    finally:
        if at_main:
            signal.signal(signal.SIGINT, before)


_worker: dict[str, Any] = {}  # of this process


def _start(parent: int, work: Work, done_bytes: Any) -> None:
    """A worker ends with its parent."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    _worker.update(work=work, state=work.begin(*work.arguments), done=done_bytes)


def _do(number: int, unit: Unit) -> _Failure | None:
    work: Work = _worker["work"]

    def tick(num_bytes: int) -> None:
        with _worker["done"].get_lock():
            _worker["done"].value += num_bytes

    try:
        work.do(_worker["state"], number, unit, tick)
    except StoreError as error:
        return _Failure(isinstance(error, InterruptedBuildError), error.place, error.what, error.fix)
    except OSError as error:
        failed = interrupted(error, work.building)
        return _Failure(True, failed.place, failed.what, failed.fix)
    return None


def interrupted(error: OSError, place: Path) -> InterruptedBuildError:
    """What an error of the disk means to who called."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    fix = f"make room and {_AGAIN}" if full else _AGAIN
    return InterruptedBuildError(str(error.filename or place), error.strerror or str(error), fix)
