"""The rank's end: it lets itself be asked where it stands, and starts the watchdog."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from xgen.hang.board import Progress, make_memory
from xgen.hang.config import Config, node_name
from xgen.hang.limits import Limits
from xgen.hang.stacks import STACK_SIGNAL

_PR_SET_PTRACER = 0x59616D61  # "Yama"


def start_watchdog(
    run: Path,
    attempt: int,
    job_id: str,
    rank: int,
    local_rank: int,
    world_size: int,
    limits: Limits,
    dump_time: float,
    bind: Callable[[], None],
) -> Progress:
    """Where the rank is to say how far it is. Without a limit only the first rank of a node has a watchdog, which
    makes the heartbeat. To be called in the main thread, before there is any other.

    The watchdog ignores the signals of a stop, and is in a session of its own: a signal to the rank's group may stop
    the rank alone. `bind` ties its life to this process' (`xgen.runs.bond`).
    """
    if not limits.seconds and local_rank:
        return Progress()
    board, trace = make_memory(), os.memfd_create("xgen-stacks")
    faulthandler.register(STACK_SIGNAL, file=trace, all_threads=True)
    node_id = int(os.environ.get("SLURM_NODEID", "0"))
    config = Config(
        run=str(run), attempt=attempt, job_id=job_id, rank=rank, local_rank=local_rank, world_size=world_size,
        node_id=node_id, node=node_name(), pid=os.getpid(), main_thread=threading.main_thread().ident or 0,
        board_fd=board, trace_fd=trace, limits=limits, dump_time=dump_time,
    )  # fmt: skip
    folder = Path(__file__).parent
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(folder), config.to_json()],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            pass_fds=[board, trace], start_new_session=True, preexec_fn=bind,  # noqa: PLW1509 - before any thread
        )  # fmt: skip
    except OSError as error:  # no process to be had: the work is worth more than who watches it
        print(f"xgen: no watchdog: {error}", file=sys.stderr, flush=True)
        return Progress()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    with suppress(AttributeError, OSError):  # where Yama lets only ancestors trace: it, and what it starts, may too
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, process.pid, 0, 0, 0)
    return Progress(board, ends=bool(limits.seconds), stacks=trace)
