"""The kind `export`: a checkpoint as a folder that Hugging Face's transformers loads.

The checkpoint is verified, then read one tensor at a time. All is written beside the place and renamed into it last: a
kill at any moment leaves a whole folder or none, and what it left beside is cleared by the next try.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from xgen.runs import Refused, RunDir, TaskContext, write_atomic
from xgen.spec import Export
from xgen.train.ckpt_admin import Tick, check, survey
from xgen.train.export_files import Dtype, Show, Source, write_files
from xgen.train.export_tokenizer import read_tokenizer
from xgen.train.manifest import MANIFEST, Fault, FileEntry, Manifest, describe, sync_folder, verify
from xgen.train.source import complete_ones, job_of, run_beside
from xgen.train.weights import weights_of

RECORD = "export.json"
_LOCK = ".lock"
_POLL = 0.2  # seconds


class Record(BaseModel):
    """export.json: what an export was made from, and every file of it."""

    model_config = ConfigDict(frozen=True)

    run: str
    step: int
    checkpoint: str  # of its manifest, which has the checksums of all else
    tokenizer: str
    dtype: Dtype
    files: tuple[FileEntry, ...] = ()

    @property
    def source(self) -> dict[str, Any]:
        return self.model_dump(exclude={"files"})

    @property
    def num_bytes(self) -> int:
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class Exported:
    """A folder that is whole. `new` is False where it was there already."""

    folder: Path
    record: Record
    num_parameters: int
    new: bool


@dataclass(frozen=True)
class ExportResult:
    """How an export job ended. `signal` is '' unless it was told to stop."""

    status: Literal["finished", "stopped"]
    step: int | None = None
    signal: str = ""


class _Stopped(Exception):  # noqa: N818 - a request
    pass


def run_export(context: TaskContext, job: Export) -> ExportResult:
    """The one task of an export job. Raises Refused when no other try can help."""
    if context.world_size > 1:
        raise Refused(
            f"an export is the work of one task, and these are {context.world_size}; "
            "write resources: {nodes: 1, gpus_per_node: 1}"
        )
    if "/" in job.run and not Path(job.run).is_absolute():
        raise Refused(f"run: {job.run} is no name and no absolute path; write one of them")
    run = run_beside(context.run, job.run)

    @contextmanager
    def show(text: str) -> Iterator[Tick]:
        def tick(_: int) -> None:
            context.progress.touch()
            if context.stop:
                raise _Stopped

        print(text, flush=True)
        tick(0)
        yield tick

    try:
        done = export(run, job.step, _path(job.out), _path(job.tokenizer), job.dtype, show)
    except _Stopped:
        return ExportResult("stopped", signal=context.stop.signal)
    print(f"{done.folder} {'is written' if done.new else 'was there already, whole and the same'}", flush=True)
    return ExportResult("finished", done.record.step)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def export(
    run: RunDir, step: int | None, out: Path | None, tokenizer: Path | None, dtype: Dtype, show: Show
) -> Exported:
    """Write the checkpoint of that step (default: the newest complete one) to `out` (default: in the run directory).

    An export that is there already, whole and from the same, stays as it is. Raises Refused with what to write
    instead, OSError where another try may help.
    """
    job = job_of(run)
    checkpoint = complete_ones(run, step)[0]
    words = read_tokenizer(job, tokenizer)
    out = out or run.path / "export" / checkpoint.name
    record = Record(
        run=run.name,
        step=checkpoint.step,
        checkpoint=_sha256((checkpoint.folder / MANIFEST).read_bytes()),
        tokenizer=_sha256(words.content.encode()),
        dtype=dtype,
    )
    there = _look(out, record, show)
    if there is None:
        weights = weights_of(run, job, checkpoint.folder, lambda folder: verify_checkpoint(folder, show))
        source = Source(run, job, Manifest.read(checkpoint.folder), weights, words)
        with _building(out, show) as building:
            there = _look(out, record, show)  # made by whoever held the lock
            if there is None:
                write_files(building, source, dtype, show)
                record = _publish(building, out, record)
    return Exported(out, there or record, job.model.num_parameters, new=there is None)


def _publish(building: Path, out: Path, record: Record) -> Record:
    """Give the folder its name when all of it is on disk."""
    files = tuple(describe(file) for file in sorted(building.iterdir()) if file.name != _LOCK)
    record = record.model_copy(update={"files": files})
    write_atomic(building / RECORD, record.model_dump_json(indent=1) + "\n")
    sync_folder(building)
    building.rename(out)
    (out / _LOCK).unlink()
    sync_folder(out.parent)
    return record


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def verify_checkpoint(folder: Path, show: Show) -> None:
    """One that weights are read from, or that adapters are merged into. Raises Refused."""
    found = [checkpoint for checkpoint in survey(RunDir(folder.parents[1])) if checkpoint.folder == folder]
    with show(f"verifying {folder}") as tick:
        checked = check(found, tick)[0]
    if checked.faults or checked.manifest is None:
        raise Refused(f"{folder} does not verify: {checked.faults[0]}; write the step of another checkpoint")


def _look(out: Path, wanted: Record, show: Show) -> Record | None:
    """The record of an export that is there; None where nothing is. Raises Refused where something else is."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    try:
        record = Record.model_validate_json((out / RECORD).read_bytes())
    except (OSError, ValidationError):
        raise Refused(f"out: {out} is there, and no export of xgen's; write another place, or remove it") from None
    if record.source != wanted.source:
        other = f"of {record.run}@{record.step} in {record.dtype}"
        said = other if other != f"of {wanted.run}@{wanted.step} in {wanted.dtype}" else "of other files by these names"
        raise Refused(f"out: {out} is an export {said}; write another place, or remove it")
    with show(f"verifying {out}") as tick:
        done = 0
        for file in record.files:
            try:
                verify(out, file)
            except Fault as fault:
                raise Refused(f"out: {out} is damaged: {fault}; remove it") from None
            done += file.size
            tick(done)
    return record


@contextmanager
def _building(out: Path, show: Show) -> Iterator[Path]:
    """An empty folder beside `out`, for one process at a time; it is gone afterwards, or renamed.

    Its lock ends with its process, whose files are cleared by the next; a file system keeps the lock of a node that
    died for a minute or two.
    """
    building = out.with_name(f".{out.name}.tmp")
    lock = _take(building)
    if lock is None:
        with show(f"waiting for another export to {out}") as tick:
            while (lock := _take(building)) is None:
                tick(0)
                time.sleep(_POLL)
    try:
        for leftover in building.iterdir():
            if leftover.name != _LOCK:
                leftover.unlink()
        yield building
    finally:
        if _is_held(building, lock):
            shutil.rmtree(building, ignore_errors=True)  # whoever waits may have made its own lock in it
        os.close(lock)


def _take(building: Path) -> int | None:
    """The lock of the folder, which is made where it is not; None when another process has it, or it was renamed."""
    building.mkdir(parents=True, exist_ok=True)
    try:
        lock = os.open(building / _LOCK, os.O_CREAT | os.O_RDWR, 0o664)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    if _is_held(building, lock):
        return lock
    os.close(lock)
    return None


def _is_held(building: Path, lock: int) -> bool:
    """Whether the lock is still that of the folder of this name."""
    try:
        return os.path.samestat(os.fstat(lock), (building / _LOCK).stat())
    except FileNotFoundError:
        return False
