"""A command with a time-out that holds: what does not answer is killed with all that it started."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence

from xgen.metrics.exporter.collector import CollectorError

_CHUNK = 1 << 16
_MAX_OUTPUT = 1 << 27  # bytes; 500,000 jobs as rows
# Settings of whoever starts the exporter change what SLURM's commands print; these do not.
_KEPT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT")
_FOREIGN = ("SLURM_", "SQUEUE_", "SINFO_", "SACCT_", "SSHARE_", "SDIAG_", "SCONTROL_")
# Times as seconds since 1970; array tasks in full.
_SETTINGS = {"LC_ALL": "C", "SLURM_TIME_FORMAT": "%s", "SLURM_BITSTR_LEN": "0"}
_running: set[subprocess.Popen[bytes]] = set()
_starting = threading.Lock()  # held until what was started is in the set


def output(arguments: Sequence[str], timeout: float) -> str:
    """All that a command prints. Raises CollectorError."""
    return b"".join(chunks(arguments, timeout)).decode(errors="replace")


def chunks(arguments: Sequence[str], timeout: float, max_output: int = _MAX_OUTPUT) -> Iterator[bytes]:
    """What a command prints, as it comes. Raises CollectorError, in the end too: an exit code spoils what came."""
    name, deadline = arguments[0], time.monotonic() + timeout
    try:
        with _starting:
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # a group of its own, to be killed as one
                env=_environment(),
            )
            _running.add(process)
    except OSError as error:
        raise CollectorError("missing", f"{name}: {error.strerror}: is SLURM's client on PATH here?") from None
    errors = b""
    try:
        with selectors.DefaultSelector() as selector:
            for pipe in (process.stdout, process.stderr):
                assert pipe is not None
                selector.register(pipe, selectors.EVENT_READ)
            size = 0
            while selector.get_map():
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready or time.monotonic() > deadline:
                    raise CollectorError("timeout", f"{name} did not answer within {timeout:g} s")
                for key, _ in ready:
                    chunk = os.read(key.fd, _CHUNK)
                    if not chunk:
                        selector.unregister(key.fileobj)
                    elif key.fileobj is process.stderr:
                        errors = (errors + chunk)[-4096:]
                    else:
                        size += len(chunk)
                        if size > max_output:
                            raise CollectorError("malformed", f"{name} printed more than {max_output} bytes")
                        yield chunk
        try:
            code = process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise CollectorError("timeout", f"{name} did not end within {timeout:g} s") from None
    except BaseException:  # also when the reader stops reading
        _kill(process)
        raise
    finally:
        _running.discard(process)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    if code:
        raise CollectorError("exit", f"{name}: {_last_line(errors) or f'exited with {code}'}")


def kill_running() -> None:
    """End the commands that are under way; their polls fail."""
    with _starting:
        running = list(_running)
    for process in running:
        _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # What hangs in the kernel dies when it can; nobody waits for it.
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1)


def _environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k in _KEPT or not k.startswith(_FOREIGN)}
    return kept | _SETTINGS


def _last_line(text: bytes) -> str:
    lines = [line.strip() for line in text.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else ""
