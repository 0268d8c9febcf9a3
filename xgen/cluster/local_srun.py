"""`srun` of the local executor: starts the tasks, passes signals on, labels their output.

Understands the arguments that `render.py` writes, and the environment that SLURM gives a step.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import BinaryIO

_PR_SET_PDEATHSIG = 1


@dataclass
class Arguments:
    command: list[str] = field(default_factory=list)
    export: list[str] = field(default_factory=list)
    chdir: str | None = None


def parse(arguments: list[str]) -> Arguments:
    """Split srun's own options from the command. Options without meaning here are passed over."""
    parsed = Arguments()
    for position, argument in enumerate(arguments):
        if not argument.startswith("--"):
            parsed.command = arguments[position:]
            break
        name, _, value = argument.partition("=")
        if name == "--export":
            parsed.export = value.split(",")
        elif name == "--chdir":
            parsed.chdir = value
    return parsed


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Step:
    """The tasks of one srun."""

    def __init__(self, arguments: Arguments) -> None:
        self._arguments = arguments
        self._tasks: list[subprocess.Popen[bytes]] = []
        self._printers: list[threading.Thread] = []

    def arm(self) -> None:
        for number in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, self._forward)

    def run(self) -> int:
        """Start all tasks, wait for all, return the highest exit code, 128+N for signal N as srun does."""
        total, nodes = int(os.environ["SLURM_NTASKS"]), int(os.environ["SLURM_NNODES"])
        for rank in range(total):
            self._start(rank, total // nodes)
        for rank, task in enumerate(self._tasks):  # after the last fork: threads and forks do not mix
            self._print(rank, task)
        codes = [0] * total
        waiting = set(range(total))
        while waiting:
            # wait() would stop at the first task; a dead one must end the others at once.
            pid, status = os.wait()
            rank = next(r for r in waiting if self._tasks[r].pid == pid)
            waiting.discard(rank)
            code = self._tasks[rank].returncode = os.waitstatus_to_exitcode(status)
            codes[rank] = code if code >= 0 else 128 - code
            if code:
                self._report(rank, code)
                for other in waiting:
                    self._signal(other, signal.SIGKILL)
        for printer in self._printers:
            printer.join(timeout=10)
        return max(codes)

    def _start(self, rank: int, per_node: int) -> None:
        names = set(self._arguments.export)
        environment = {k: v for k, v in os.environ.items() if k in names or k.startswith("SLURM_")}
        environment |= {
            "SLURM_PROCID": str(rank),
            "SLURM_LOCALID": str(rank),  # all on this machine: the device is chosen by it
            "SLURM_NODEID": str(rank // per_node),
        }
        task = subprocess.Popen(
            self._arguments.command,
            env=environment,
            cwd=self._arguments.chdir,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - before any thread is started
        )
        self._tasks.append(task)

    def _print(self, rank: int, task: subprocess.Popen[bytes]) -> None:
        assert task.stdout and task.stderr
        for source, sink in ((task.stdout, sys.stdout.buffer), (task.stderr, sys.stderr.buffer)):
            printer = threading.Thread(target=_label, args=(rank, source, sink), daemon=True)
            self._printers.append(printer)
            printer.start()

    def _forward(self, number: int, _frame: FrameType | None) -> None:
        for rank in range(len(self._tasks)):
            self._signal(rank, signal.Signals(number))

    def _signal(self, rank: int, number: signal.Signals) -> None:
        """To every process of the task, as SLURM does."""
        if self._tasks[rank].returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._tasks[rank].pid, number)

    def _report(self, rank: int, code: int) -> None:
        said = signal.strsignal(-code) if code < 0 else f"Exited with exit code {code}"
        print(f"srun: error: localhost: task {rank}: {said}", file=sys.stderr, flush=True)


def _label(rank: int, source: BinaryIO, sink: BinaryIO) -> None:
    for line in source:
        sink.write(f"{rank}: ".encode() + line)
        sink.flush()


def main() -> int:
    step = Step(parse(sys.argv[2:]))
    step.arm()
    (Path(sys.argv[1]) / "srun.pid").write_text(str(os.getpid()))  # from now on signals come
    return step.run()


if __name__ == "__main__":
    sys.exit(main())
