"""Run directories that are taken away: first the name, then the files, so that half of one is never taken for a run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from xgen.cluster import local
from xgen.cluster.alone import alone
from xgen.cluster.status import QueueView, last_decision, run_state
from xgen.runs import RUN_NAME, RunDir, read_events

_GOING = ".removed-"  # what a run's folder is called meanwhile


class Busy(Exception):  # noqa: N818 - a refusal
    """Somebody resumes the run, or it is no longer what it was."""


def remove(run: RunDir, states: tuple[str, ...]) -> None:
    """Remove a run that has ended in one of these states. Raises Busy where it has not, OSError where it cannot be
    removed: what is left has then another name, and goes the next time."""
    with only_mine(run, states):
        going = run.path.with_name(f"{_GOING}{run.name}.{os.getpid()}")
        run.path.rename(going)
    run.discovery_file.unlink(missing_ok=True)
    shutil.rmtree(going)


@contextmanager
def only_mine(run: RunDir, states: tuple[str, ...]) -> Iterator[None]:
    """Nobody resumes it meanwhile, and it has ended. Raises Busy."""
    with alone(run) as lock:
        if lock is None:
            raise Busy("somebody resumes it")
        # By its own files: whatever a person ordered since it was looked at is in them.
        state, _ = run_state(run, last_decision(read_events(run)), QueueView({}))
        if state not in states or local.is_alive(run):
            raise Busy(f"it is {state} now" if state != "lost" else "it goes on")
        yield


def half_removed(run_root: Path) -> list[Path]:
    """What an earlier removal of this person has left, cut short."""
    try:
        with os.scandir(run_root) as entries:
            found = [Path(e.path) for e in entries if _is_going(e.name) and e.stat().st_uid == os.getuid()]
    except FileNotFoundError:
        return []
    return [path for path in found if not _is_alive(path)]


def _is_going(name: str) -> bool:
    return name.startswith(_GOING) and RUN_NAME.match(name.removeprefix(_GOING).rpartition(".")[0]) is not None


def _is_alive(going: Path) -> bool:
    """Whether the process that removes it is at work still, on this machine."""
    pid = going.name.rpartition(".")[2]
    return Path(f"/proc/{pid}").exists() and pid != str(os.getpid())


def unused_code(run_root: Path) -> list[Path]:
    """Copies of code that runs shared and none uses any more (see snapshot.py)."""
    with suppress(FileNotFoundError):
        return [
            path for path in (run_root / ".code").iterdir() if path.stat().st_uid == os.getuid() and _is_unused(path)
        ]
    return []


def _is_unused(folder: Path) -> bool:
    file = next((path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()), None)
    return file is not None and file.stat().st_nlink == 1


def size_of(folder: Path) -> int:
    """Bytes on the disk that go with a folder: of files that another run shares, none."""
    return sum(size for size, links in _files(folder) if links == 1)


def share_of(folder: Path) -> tuple[float, bool]:
    """Bytes on the disk that a folder has, of files that several share its part; and whether there are any such. Raises
    PermissionError for a folder that may not be read."""
    files = list(_files(folder, _refuse))
    return sum(size / links for size, links in files), any(links > 1 for _, links in files)


def _refuse(error: OSError) -> None:
    if isinstance(error, PermissionError):
        raise error


def _files(folder: Path, on_error: Callable[[OSError], None] | None = None) -> Iterator[tuple[int, int]]:
    """Bytes on the disk of each file below, and the names that it has. What goes meanwhile is passed over, and so is a
    folder that cannot be read, unless `on_error` raises."""
    for parent, _, names in os.walk(folder, onerror=on_error):
        for name in names:
            with suppress(FileNotFoundError):
                stat = os.lstat(f"{parent}/{name}")
                yield stat.st_blocks * 512, max(stat.st_nlink, 1)
