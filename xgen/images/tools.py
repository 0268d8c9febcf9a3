"""Running the tools that others keep: with a time-out, the end of stderr in the error, and no child left behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from xgen.images.errors import ImageError
from xgen.images.progress import Tick

PROBE_SECONDS = 20.0
WORK_SECONDS = 2 * 3600.0  # a 25 GB image over a slow link, or squashed on two cores
_FULL = ("no space left on device", "disk quota exceeded")
_TAIL_LINES = 6
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


class ToolError(ImageError):
    """A tool failed, ran out of time, or is not there. `full`: because the disk is."""

    def __init__(self, message: str, full: bool = False) -> None:
        super().__init__(message)
        self.full = full


def installed(tool: str) -> bool:
    return shutil.which(tool) is not None


def answers(argv: Sequence[str]) -> bool:
    """Whether a probe ends well."""
    try:
        run(argv, timeout=PROBE_SECONDS)
    except ToolError:
        return False
    return True


def version(tool: str) -> str:
    """`skopeo 1.9.3`; the bare name where the tool does not say."""
    flag = "-version" if tool in ("mksquashfs", "unsquashfs") else "--version"
    try:
        done = subprocess.run([tool, flag], capture_output=True, text=True, timeout=PROBE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return tool
    numbers = [word.strip(",v") for word in (done.stdout or done.stderr).split() if word.strip(",v")[:1].isdigit()]
    return f"{tool} {numbers[0]}" if numbers else tool


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    tick: Tick | None = None,
    watch: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Standard output of a tool. Raises ToolError.

    The tool is a process group of its own that ends with this process, however this ends: what it writes lies in
    a temporary folder that the next import clears.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, **(env or {})},
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - one system call, no lock
            )
        except OSError as error:
            raise ToolError(f"{argv[0]}: {error.strerror}") from None
        try:
            code = _wait(process, timeout, tick, watch)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        if tick is not None and watch is not None:
            tick(bytes_in(watch))
        out.seek(0)
        err.seek(0)
        said = out.read().decode(errors="replace")
        tail = err.read().decode(errors="replace") or said
    if code is None:
        raise ToolError(f"{argv[0]} did not end within {timeout:.0f} s: {_last_lines(tail)}")
    if code != 0:
        full = any(word in tail.lower() for word in _FULL)
        raise ToolError(f"{' '.join(argv[:2])} failed ({code}): {_last_lines(tail)}", full)
    return said


def _wait(process: subprocess.Popen[bytes], timeout: float, tick: Tick | None, watch: Path | None) -> int | None:
    """The exit code; None when the time is over, and then the tool is gone."""
    end = time.monotonic() + timeout
    pause = 0.01
    while True:
        try:
            return process.wait(pause)
        except subprocess.TimeoutExpired:
            pause = min(0.25, 2 * pause)
        if tick is not None:
            tick(bytes_in(watch) if watch is not None else 0)
        if time.monotonic() > end:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return None


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def bytes_in(place: Path) -> int:
    """Size of a file, or of the files in a folder of an OCI layout; 0 while nothing is there."""
    total = 0
    with contextlib.suppress(OSError):
        if not place.is_dir():
            return place.stat().st_size
        for folder in (place, place / "blobs" / "sha256"):
            with contextlib.suppress(OSError):
                total += sum(entry.stat().st_size for entry in os.scandir(folder) if entry.is_file())
    return total


def _last_lines(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-_TAIL_LINES:])[-1200:] or "it said nothing"
