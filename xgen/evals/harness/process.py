"""The process that has lm-eval: started with an order, read line by line, ended with all that it has started."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from xgen.runs import Refused
from xgen.runs.bond import die_with_parent

CHILD = Path(__file__).with_name("child.py")
SILENCE = 3600.0  # seconds without a line: more than the slowest chunk and the loading of the largest model take
_LOOK = 0.5
_LEAVING = 30.0  # seconds after the last line: some libraries hang as they are taken down
# A rank of a training, where lm-eval would wait for the others; and what would lead it to other folders.
_NOT_PASSED = (
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT",
    "HF_DATASETS_CACHE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_EVALUATE_CACHE", "HF_MODULES_CACHE",
    "HF_DATASETS_TRUST_REMOTE_CODE",
)  # fmt: skip


_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE", "TRANSFORMERS_OFFLINE")
_NO_BARS = {"TQDM_DISABLE": "1"}


def offline(datasets: Path | None, own: Path) -> dict[str, str]:
    """Environment of a process that finds its data sets in the folder, which may be read-only, and nowhere else. `own`:
    a folder for the locks that reading them takes, and for what becomes of them."""
    (own / "datasets").mkdir(parents=True, exist_ok=True)
    if datasets:
        _mirror(datasets / "datasets", own / "datasets")
    return {"HF_HOME": str(own), **dict.fromkeys(_OFFLINE, "1"), **_NO_BARS}


def _mirror(source: Path, target: Path) -> None:
    """Folders of one's own with links to all files. Several may be at it at a time."""
    for folder, folders, names in os.walk(source):
        if Path(folder) == source:
            folders[:] = [
                name for name in folders if name != "downloads"
            ]  # what was prepared from these is beside them
        here = target / Path(folder).relative_to(source)
        here.mkdir(exist_ok=True)
        for name in names:
            if not name.endswith(".lock"):
                with suppress(FileExistsError):
                    (here / name).symlink_to(Path(folder).absolute() / name)


def online(datasets: Path, bars: bool) -> dict[str, str]:
    """Environment of a process that fetches data sets into the folder."""
    return {"HF_HOME": str(datasets), **dict.fromkeys(_OFFLINE, "0"), **({} if bars else _NO_BARS)}


def answers(
    python: str | None,
    order: Mapping[str, Any],
    environment: Mapping[str, str],
    stopped: Callable[[], bool] = lambda: False,
    silence: float = SILENCE,
) -> Iterator[dict[str, Any]]:
    """Lines of the child's answer to an order (child.py), until its end or until `stopped` says so.

    Raises Refused for what it refuses and for an interpreter that cannot be started, RuntimeError for what another try
    may help: it crashed, was killed, or gave no line for `silence` seconds.
    """
    with _started(python or sys.executable, order, environment) as (process, pipe):
        last, rest = time.monotonic(), b""
        while not stopped():
            if select.select([pipe], [], [], _LOOK)[0]:
                if not (chunk := os.read(pipe, 1 << 16)):
                    _ended(process, stopped)
                    return
                last = time.monotonic()
                *lines, rest = (rest + chunk).split(b"\n")
                yield from filter(None, map(_read, lines))
            elif time.monotonic() - last > silence:
                raise RuntimeError(f"harness: lm-eval has said nothing for {silence:.0f} s; it was ended")


def _read(line: bytes) -> dict[str, Any] | None:
    """None of a sign of life."""
    answer: dict[str, Any] = json.loads(line)
    if refused := answer.get("refused"):
        raise Refused(str(refused))
    if failed := answer.get("failed"):
        raise RuntimeError(failed)
    if crashed := answer.get("crashed"):
        raise RuntimeError(f"harness: lm-eval crashed: {crashed}; its traceback is in the log")
    return None if "beat" in answer else answer


def _ended(process: subprocess.Popen[bytes], stopped: Callable[[], bool]) -> None:
    """It has closed the pipe, and so has said all. The signal of a stop may reach it as well, and kills it."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(_LEAVING)
    if (code := process.returncode) and not stopped():
        said = f"was killed by signal {-code}" if code < 0 else f"exited with {code}"
        raise RuntimeError(f"harness: the process of lm-eval {said}; what it said is in the log")


@contextmanager
def _started(
    python: str, order: Mapping[str, Any], environment: Mapping[str, str]
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    known = {key: value for key, value in os.environ.items() if key not in _NOT_PASSED}
    quiet = {"TOKENIZERS_PARALLELISM": "false"}
    reader, writer = os.pipe()
    try:
        with tempfile.TemporaryFile() as file:
            file.write(json.dumps(order).encode())
            file.seek(0)
            try:
                process = subprocess.Popen(
                    [python, "-I", CHILD, str(writer)],
                    stdin=file,
                    stdout=2,
                    env={**known, **quiet, **environment},
                    pass_fds=(writer,),
                    start_new_session=True,
                    preexec_fn=die_with_parent(),  # noqa: PLW1509 - one system call, no lock
                )
            except OSError as error:
                what = f"harness.python: cannot start {python}: {error.strerror}"
                raise Refused(f"{what}; name the interpreter of an environment with lm-eval") from None
            finally:
                os.close(writer)
        try:
            yield process, reader
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    finally:
        os.close(reader)
