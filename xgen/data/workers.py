"""Processes that encode units. They end with their parent, however that ends."""

from __future__ import annotations

import ctypes
import errno
import multiprocessing
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xgen.data.encode import Encoder, Resolved
from xgen.data.errors import InterruptedBuildError, StoreError
from xgen.data.interrupted import unit_folder
from xgen.data.progress import Progress
from xgen.data.readers import Defaults, Keys, read_unit
from xgen.data.staging import sync_tree
from xgen.data.store import token_type
from xgen.data.tokenizer import Tokenizer
from xgen.data.units import Unit
from xgen.data.writer import write_unit

_POLL = 0.2  # seconds
_AGAIN = "run it again: it goes on where it was"


@dataclass(frozen=True)
class Job:
    """What every unit needs."""

    building: Path
    tokenizer: Path
    engine: Resolved
    keys: Keys
    defaults: Defaults
    on_bad_record: str


@dataclass(frozen=True)
class _Failure:
    """A StoreError on its way out of a process: exceptions with arguments of their own do not travel well."""

    interrupted: bool
    place: str
    what: str
    fix: str

    def error(self) -> StoreError:
        return (InterruptedBuildError if self.interrupted else StoreError)(self.place, self.what, self.fix)


def encode_units(job: Job, units: dict[int, Unit], total: int, workers: int, progress: Progress) -> None:
    """Encode `units`, each into its folder; `total` counts those that are done already, too.

    Raises StoreError for what is wrong with the input, and InterruptedBuildError for the rest.
    """
    if not units:
        return
    context = multiprocessing.get_context("spawn")
    done_bytes = context.Value("Q", 0)
    arguments = (os.getpid(), job, done_bytes)
    pool = ProcessPoolExecutor(min(workers, len(units)), context, initializer=_start, initargs=arguments)
    waiting: set[Future[_Failure | None]] = set()
    # The pool writes to workers that are gone, and the commands let a broken pipe end them without a word.
    at_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGPIPE, signal.SIG_IGN) if at_main else None
    try:
        with _deaf(at_main):
            waiting = {pool.submit(_encode_unit, number, unit) for number, unit in units.items()}
        while waiting:
            finished, waiting = wait(waiting, _POLL, FIRST_COMPLETED)
            failures = [failure for future in finished if (failure := future.result())]
            progress("units", total - len(waiting) - len(failures), total)
            progress("MB of text", int(done_bytes.value / 1e6), 0)
            if failures:
                raise failures[0].error()
    except BrokenProcessPool:
        what = "a worker process died (killed, or out of memory)"
        raise InterruptedBuildError(job.building, what, f"{_AGAIN}; for memory, with fewer --workers") from None
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


def _start(parent: int, job: Job, done_bytes: Any) -> None:
    """A worker ends with its parent."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    tokenizer = Tokenizer.load(job.tokenizer)
    _worker.update(job=job, tokenizer=tokenizer, encoder=Encoder(tokenizer, job.engine), done=done_bytes)


def _encode_unit(number: int, unit: Unit) -> _Failure | None:
    job: Job = _worker["job"]
    tokenizer: Tokenizer = _worker["tokenizer"]
    folder = unit_folder(job.building, number)
    unfinished = folder.with_suffix(".tmp")

    def tick(num_bytes: int) -> None:
        with _worker["done"].get_lock():
            _worker["done"].value += num_bytes

    try:
        for leftover in (folder, unfinished):
            shutil.rmtree(leftover, ignore_errors=True)
        unfinished.mkdir(parents=True)
        records = read_unit(unit, job.keys, job.defaults)
        kind = token_type(tokenizer.vocab_size)
        stop = job.on_bad_record == "stop"
        write_unit(unfinished, records, _worker["encoder"], kind, tokenizer.end_of_text, tick, stop)
        sync_tree(unfinished)
        unfinished.rename(folder)
    except StoreError as error:
        return _Failure(isinstance(error, InterruptedBuildError), error.place, error.what, error.fix)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        fix = f"make room and {_AGAIN}" if full else _AGAIN
        return _Failure(True, str(error.filename or job.building), error.strerror or str(error), fix)
    return None
