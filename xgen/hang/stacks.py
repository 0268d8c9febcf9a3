"""Where a process stands: its Python stacks, its native ones, and what its threads wait for in the kernel.

What is possible depends on where it runs. The rank's own signal handler writes the Python stacks, which needs no right
and works while a C call holds the interpreter's lock; native stacks need py-spy or gdb, and ptrace, which some
containers forbid; /proc tells the rest. What was not possible stands in the dump.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from xgen.hang import proc

STACK_SIGNAL = signal.SIGUSR1
_PATIENCE = 5.0  # seconds for the rank's own handler
_TOOL = 20.0  # seconds for a tool: one that waits for a process which cannot be stopped is killed
_MOST_CHILDREN = 8  # that get stacks of their own
_NAP = 0.05


@dataclass(frozen=True)
class Frame:
    """One line of a Python stack."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{short(self.file)}:{self.line} {self.function}"

    @property
    def is_library(self) -> bool:
        """Whether it is of Python itself, or of an installed package."""
        return "/site-packages/" in self.file or re.search(r"/lib/python3\.\d+/", self.file) is not None


@dataclass(frozen=True)
class Trace:
    """Memory that a process' faulthandler writes to, and the thread of its that counts."""

    fd: int
    main_thread: int


def short(file: str) -> str:
    """A path from its package on, or its last three names."""
    parts = Path(file).parts
    for mark in ("site-packages", "code"):
        if mark in parts[:-1]:
            return "/".join(parts[len(parts) - parts[::-1].index(mark) :])
    return "/".join(parts[-3:])


def dump(pid: int, trace: Trace, watchdog: int) -> str:
    """All that can be found out about a rank, without changing what it does."""
    own = proc.stat(pid)
    state = own.state if own else "gone"
    sections = [("state", _state(state))]
    with _stopped_again(pid, state):
        python = _by_handler(pid, trace, wake=state in "Tt")
    sections.append(("Python stacks", python or _by_pyspy(pid, "--nonblocking")))
    unstoppable = "not asked for: the process cannot be stopped"
    sections.append(("native stacks", unstoppable if state == "D" else native(pid)))
    sections.append(("threads in the kernel", "\n".join(proc.threads(pid))))
    children = [child for child in proc.descendants(pid, but=watchdog) if child.state != "Z"]
    for child in children[:_MOST_CHILDREN]:
        said = [proc.command_line(child.pid), *proc.threads(child.pid)]
        sections.append((f"child {child.pid}", "\n".join([*said, _by_pyspy(child.pid)])))
    if more := children[_MOST_CHILDREN:]:
        sections.append(("more children", "\n".join(f"{c.pid} {c.state} {proc.command_line(c.pid)}" for c in more)))
    return "".join(f"== {title} ==\n{text.rstrip()}\n\n" for title, text in sections)


def section(text: str, title: str) -> str:
    """What stands under a title of a dump, '' for none."""
    found = re.search(rf"^== {re.escape(title)} ==\n(.*?)(?=^== |\Z)", text, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


_STATES = {
    "R": "computes", "S": "waits", "D": "waits in the kernel, and cannot be interrupted (a disk, a driver)",
    "T": "was stopped by a signal", "t": "is held by a debugger", "Z": "has ended, unheard", "gone": "is gone",
}  # fmt: skip


def _state(state: str) -> str:
    return f"{state}: the rank {_STATES.get(state, 'is in a state of its own')}"


@contextmanager
def _stopped_again(pid: int, state: str) -> Iterator[None]:
    """One that was stopped has to go on for a moment, to say where it is; and stops again."""
    try:
        yield
    finally:
        if state == "T":
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)


def _by_handler(pid: int, trace: Trace, wake: bool) -> str:
    """What the rank's faulthandler writes; '' when it writes nothing. The kernel runs it wherever the rank is."""
    before = os.fstat(trace.fd).st_size
    try:
        os.kill(pid, STACK_SIGNAL)
        if wake:
            os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        return ""
    deadline, size, since = time.monotonic() + _PATIENCE, before, time.monotonic()
    while time.monotonic() < deadline:
        time.sleep(_NAP)
        if (now := os.fstat(trace.fd).st_size) != size:
            size, since = now, time.monotonic()
        elif size > before and time.monotonic() - since > 4 * _NAP:
            break
    text = os.pread(trace.fd, size - before, before).decode(errors="replace")
    ours = f"{trace.main_thread:#018x}"
    return re.sub(rf"(?:Current t|T)hread {ours} \(", f"Main thread {ours} (", text)


def native(pid: int) -> str:
    """By py-spy, which shows Python's frames among the others, or else by gdb."""
    said = _by_pyspy(pid, "--native")
    if not said.startswith("not possible"):
        return said
    gdb = shutil.which("gdb")
    if gdb is None:
        return f"{said}\nnot possible by gdb: it is not installed"
    command = [gdb, "-p", str(pid), "-batch", "-nx", "-ex", "set pagination off", "-ex", "thread apply all bt 48"]
    return f"{said}\n{_run(command, lambda text: text.count('#0') > 0)}"


def _by_pyspy(pid: int, *options: str) -> str:
    beside = Path(sys.executable).with_name("py-spy")
    tool = str(beside) if beside.exists() else shutil.which("py-spy")
    if tool is None:
        return "not possible by py-spy: it is not installed"
    return _run([tool, "dump", "--pid", str(pid), *options], lambda text: "Thread" in text)


def _run(command: list[str], is_good: Callable[[str], bool]) -> str:
    """What a tool prints, or why it is not possible."""
    name = Path(command[0]).name
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TOOL,
            check=False,
            text=True,
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        return f"not possible by {name}: it had no answer within {_TOOL:.0f} s"
    except OSError as error:
        return f"not possible by {name}: {error.strerror}"
    if is_good(done.stdout):
        return done.stdout
    said = " ".join((done.stderr or done.stdout).split())[-400:]
    return f"not possible by {name}: {said or f'it ended with {done.returncode}'}"


_FRAME = re.compile(r'^  File "(?P<file>.*)", line (?P<line>\d+) in (?P<function>.*)$')
_PYSPY_FRAME = re.compile(r"^\s+(?P<function>\S.*) \((?P<file>[^()]+):(?P<line>\d+)\)$")


def main_stack(text: str) -> tuple[Frame, ...]:
    """The Python stack of the rank's main thread in a dump, innermost first; empty where there is none."""
    python = section(text, "Python stacks")
    if "Main thread" in python:
        return _frames(python.partition("Main thread")[2].partition("\n")[2], _FRAME)
    return _frames(_main_thread(python), _PYSPY_FRAME)


def child_stack(text: str) -> tuple[Frame, ...]:
    """The same of the rank's last child that is Python: what a `command` runs."""
    for title in reversed(re.findall(r"^== (child \d+) ==$", text, re.MULTILINE)):
        if frames := _frames(_main_thread(section(text, title)), _PYSPY_FRAME):
            return frames
    return ()


def native_stack(text: str) -> str:
    """The native stack of the main thread, '' for none."""
    return _main_thread(section(text, "native stacks"))


def _main_thread(text: str) -> str:
    """Of py-spy's blocks that of the thread with the process' own number; of gdb's the last, which is thread 1."""
    process = re.search(r"^Process (\d+): ", text, re.MULTILINE)
    if process:
        found = re.search(rf"^Thread {process[1]} [^\n]*\n((?:[ \t]+\S.*\n?)*)", text, re.MULTILINE)
        return found[1] if found else ""
    return text.rpartition("\nThread 1 ")[2].partition("\n\n")[0] if "\nThread 1 " in text else ""


def _frames(text: str, pattern: re.Pattern[str]) -> tuple[Frame, ...]:
    frames = []
    for line in text.splitlines():
        found = pattern.match(line)
        if not found:
            break
        if not found["file"].startswith("<frozen"):  # how Python starts a module
            frames.append(Frame(found["file"], int(found["line"]), found["function"]))
    return tuple(frames)
