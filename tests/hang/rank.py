"""A rank without torch: takes steps with a watchdog beside it, and then stands still in some way.

`python rank.py RUN RANK WORLD_SIZE LIMIT HOW DUMP_TIME`
"""

import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path

from xgen.hang.limits import Limits
from xgen.hang.start import start_watchdog
from xgen.runs.bond import die_with_parent


def others_are_waited_for() -> None:
    threading.Event().wait()


def holds_the_lock() -> None:
    ctypes.PyDLL(None).sleep(1000)  # the planted line


def waits_in_the_kernel() -> None:
    """The parent of a vfork waits for its child like for a disk: uninterruptible, but for its death."""
    libc, tie = ctypes.CDLL(None), die_with_parent()
    if libc.vfork() == 0:
        tie()  # or it would outlive the test
        libc.sleep(200)


def main() -> None:
    run, rank, world_size, limit, how = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5]
    progress = start_watchdog(
        run, attempt=1, job_id="7", rank=rank, local_rank=rank, world_size=world_size,
        limits=Limits({"start": 60.0, "train": float(limit)}, learns=False), dump_time=float(sys.argv[6]),
        bind=die_with_parent(),
    )  # fmt: skip
    progress.enter("train")
    for step in range(1, 13 if how == "waits" else 12):
        progress.step(step)
        time.sleep(0.01)
    print("stands", flush=True)
    match how:
        case "waits":
            others_are_waited_for()
        case "lock":
            holds_the_lock()
        case "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "kernel":
            waits_in_the_kernel()
        case "frozen":  # with its watchdog, as a node does
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            for pid in (*map(int, children), os.getpid()):
                os.kill(pid, signal.SIGSTOP)
        case "times out":
            progress.lost(60)
        case "moves":
            while True:
                progress.touch()
                time.sleep(0.05)
    time.sleep(1000)


if __name__ == "__main__":
    main()
