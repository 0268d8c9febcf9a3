"""`srun` of the local executor: starts the tasks, passes signals on, labels their output.

Understands the arguments that `render.py` writes, and the environment that SLURM gives a step. As a step of SLURM does,
it leaves no process of a task behind, and ends with the batch script.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import BinaryIO

from xgen.runs.bond import die_with_parent

_DRAIN = 5.0  # seconds for the last output, should a process that left its task's group hold the pipes


@dataclass
class Arguments:
    command: list[str] = field(default_factory=list)
    export: list[str] = field(default_factory=list)
    chdir: str | None = None
    num_tasks: int | None = None  # default: the job's


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
        elif name == "--ntasks":  # of a step with one task per node, which are all this machine
            parsed.num_tasks = 1
    return parsed


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
        total = self._arguments.num_tasks or int(os.environ["SLURM_NTASKS"])
        nodes = min(total, int(os.environ["SLURM_NNODES"]))
        for rank in range(total):
            self._start(rank, total // nodes)
        for rank, task in enumerate(self._tasks):  # after the last fork: threads and forks do not mix
            self._print(rank, task)
        threading.Thread(target=self._end_with_the_script, daemon=True).start()
        codes = [0] * total
        waiting = set(range(total))
        while waiting:
            # wait() would stop at the first task; a dead one must end the others at once.
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            assert ended is not None
            rank = next(r for r in waiting if self._tasks[r].pid == ended.si_pid)
            waiting.discard(rank)
            # What the task leaves behind goes with it. Not reaped yet, so that its group's number is still its own.
            self._signal(rank, signal.SIGKILL)
            code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
            self._tasks[rank].returncode = code
            os.waitpid(ended.si_pid, 0)
            codes[rank] = code if code >= 0 else 128 - code
            if code:
                self._report(rank, code)
                for other in waiting:
                    self._signal(other, signal.SIGKILL)
        drained = time.monotonic() + _DRAIN
        for printer in self._printers:
            printer.join(timeout=max(0.0, drained - time.monotonic()))
        return max(codes)

    def _end_with_the_script(self) -> None:
        """The batch script leads the session. It may be killed, and so may whatever stands between it and us."""
        script = select.poll()
        with suppress(ProcessLookupError):
            script.register(os.pidfd_open(os.getsid(0)), select.POLLIN)
            script.poll()
        for rank in range(len(self._tasks)):
            self._signal(rank, signal.SIGKILL)
        os._exit(1)

    def _start(self, rank: int, per_node: int) -> None:
        names = set(self._arguments.export)
        environment = {k: v for k, v in os.environ.items() if k in names or k.startswith("SLURM_")}
        environment |= {
            "SLURM_PROCID": str(rank),
            "SLURM_LOCALID": str(rank),  # all on this machine: the device is chosen by it
            "SLURM_NODEID": str(rank // per_node),
        }
        try:
            task = subprocess.Popen(
                self._arguments.command,
                env=environment,
                cwd=self._arguments.chdir,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                preexec_fn=die_with_parent(),  # noqa: PLW1509 - before any thread is started
            )
        except OSError as error:  # as slurmstepd says it
            _write(2, f"slurmstepd: error: execve(): {error.filename}: {error.strerror}\n".encode())
            self._report(rank, 2)
            sys.exit(2)
        self._tasks.append(task)

    def _print(self, rank: int, task: subprocess.Popen[bytes]) -> None:
        assert task.stdout and task.stderr
        for source, sink in ((task.stdout, 1), (task.stderr, 2)):
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
        _write(2, f"srun: error: localhost: task {rank}: {said}\n".encode())


def _label(rank: int, source: BinaryIO, sink: int) -> None:
    for line in source:
        _write(sink, f"{rank}: ".encode() + line)


def _write(sink: int, line: bytes) -> None:
    """A full disk costs the line and no more: a task whose pipe nobody reads would stop in its next print()."""
    with suppress(OSError):
        os.write(sink, line)


def main() -> int:
    step = Step(parse(sys.argv[2:]))
    step.arm()
    pid_file = Path(sys.argv[1]) / "srun.pid"
    pid_file.write_text(str(os.getpid()))  # from now on signals come
    try:
        return step.run()
    finally:
        pid_file.unlink(missing_ok=True)  # the number may be another's soon


if __name__ == "__main__":
    sys.exit(main())
