"""Jobs of one run that wait for jobs of another, wherever those go: a step of a pipeline waits for the steps that it
needs, and a job that takes another's place takes over those that wait for it.

`waiting/JOB` in the directory of a run says that JOB, of another run, waits for it; the file has what it waits for in
SLURM's words, `afterok:12`. The batch script's `repoint` (host/waiting.sh) and the one here keep both right.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from xgen.cluster import slurm
from xgen.cluster.alone import take
from xgen.runs import RunDir, write_atomic
from xgen.spec.pipeline import How

_WAIT = 90.0  # seconds for a batch script that hands over: its own calls of SLURM give up after 60
_NOTE = re.compile(r"\([^)]*\)|_\*")  # scontrol's notes to what a job waits for: afterok:12_*(unfulfilled)


@dataclass(frozen=True)
class Behind:
    """That a run starts once another has finished, or however it ended."""

    run: RunDir
    last_stage: int  # of that other
    how: How

    def term(self) -> str:
        """In SLURM's words. Raises OSError when the other has no job."""
        jobs = self.run.job_file(self.last_stage).read_text(encoding="utf-8").strip()
        return f"after{self.how}:{jobs}"


@contextmanager
def held(others: Sequence[Behind]) -> Iterator[dict[Behind, str]]:
    """What to wait for, of each; until this ends no job of theirs hands over to another. Raises SchedulerError."""
    with ExitStack() as stack:
        for path in sorted({other.run.job_file(0).parent / ".lock" for other in others}):
            stack.enter_context(locked(path))
        yield {other: other.term() for other in others}


def note(terms: dict[Behind, str], job_id: str) -> None:
    """That a job which was submitted with these terms waits."""
    for other, term in terms.items():
        folder = other.run.path / "waiting"
        folder.mkdir(exist_ok=True)
        write_atomic(folder / job_id, term + "\n")


def repoint(run: RunDir, jobs: str) -> list[str]:
    """Whoever waits for a run waits for these jobs of it from now on: `12`, or `12:15`. Returns their ids."""
    folder = run.path / "waiting"
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    moved = []
    for file in found:
        if not file.name.isdecimal():
            continue
        with locked(run.path.parent / ".repoint.lock"):
            old = file.read_text(encoding="utf-8").strip()
            how, _, gone = old.partition(":")
            try:
                record = slurm.command("scontrol", "show", "job", "-o", file.name)
            except slurm.SchedulerError as error:
                if "nvalid job id" not in str(error):
                    raise
                record = ""
            if "JobState=PENDING" not in record:  # it has started, or is gone
                file.unlink()
                continue
            new = f"{how}:{jobs}"
            terms = [term for term in _terms(record) if term.partition(":")[2] not in gone.split(":")]
            slurm.command("scontrol", "update", f"JobId={file.name}", f"Dependency={','.join([*terms, new])}")
            write_atomic(file, new + "\n")
            moved.append(file.name)
    return moved


def _terms(record: str) -> list[str]:
    found = re.search(r" Dependency=(\S*)", record)
    text = _NOTE.sub("", found[1]) if found else ""
    return [term for term in text.split(",") if ":" in term]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    if (lock := take(path, _WAIT)) is None:
        raise slurm.SchedulerError(f"{path} is locked since {_WAIT:.0f} s; try again")
    try:
        yield
    finally:
        os.close(lock)
