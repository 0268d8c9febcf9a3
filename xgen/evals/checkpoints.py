"""Which checkpoints a spec means, and what became of those that are no longer there.

What the newest was, and which others there were, is written down once (`evaluation/checkpoints.json`): all shards and
attempts score the very same, whatever the training has saved or deleted meanwhile.
"""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from xgen.evals.records import make_folder
from xgen.runs import EventReader, Refused, RunDir
from xgen.runs.origin import Beginning
from xgen.runs.rundir import write_once
from xgen.spec import Checkpoints, Evaluate

LISTED_AFTER = 60.0  # seconds that a file system may take to list a new folder on every node
_KEY = "checkpoints.run"


class Chosen(BaseModel):
    """checkpoints.json."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    steps: tuple[int, ...]  # that were there, or are named; 0 for a Hugging Face folder
    time: float  # seconds since the epoch

    @classmethod
    def read(cls, run: RunDir) -> Self | None:
        """None for an evaluation that has not begun."""
        try:
            return cls.model_validate_json((run.evaluation_dir / "checkpoints.json").read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def write(self, run: RunDir) -> Self:
        """Returns what counts: of several shards that write at once, the first one's."""
        make_folder(run.evaluation_dir)
        if write_once(run.evaluation_dir / "checkpoints.json", self.model_dump_json() + "\n"):
            return self
        return self.read(run) or self


def source_of(job: Evaluate, run: RunDir) -> RunDir | None:
    """The run whose checkpoints are scored; None for a Hugging Face folder. Raises Refused."""
    from xgen.train.source import job_of, run_beside

    if job.checkpoints.run is None:
        return None
    source = run_beside(run, job.checkpoints.run)
    job_of(source, _KEY)
    return source


class Wanted:
    """What is to be scored, as far as it is known."""

    def __init__(self, job: Evaluate, run: RunDir) -> None:
        """`run` is the evaluation. Raises Refused where a checkpoint is named that never was, or none is there."""
        self._wanted = job.checkpoints
        self.source = source_of(job, run)
        self._reader = EventReader(self.source, thinned=True) if self.source else None
        self._saved: dict[int, float] = {}  # when the training said that it has saved a step
        self._chosen = Chosen.read(run) or self._choose().write(run)

    def ready(self) -> tuple[list[int], bool]:
        """Steps that can be taken up, ascending, and whether no other will follow. Those among them that are not there
        are gone."""
        chosen = set(self._chosen.steps)
        if not (self._wanted.follow and self.source):
            return sorted(chosen), True
        has_ended = self.source.ended_file.exists()  # asked first: what is saved before the end is seen after it
        self._read_events()
        now = time.time()
        there = {step for step in self.source.checkpoint_steps() if self._wanted.takes(step)}
        saved = {step for step, at in self._saved.items() if step in chosen or at > self._chosen.time}
        missing = {step for step in saved - there if self._wanted.takes(step)}
        unseen = {step for step in missing if now - self._saved[step] < LISTED_AFTER}
        if has_ended and not unseen:
            return sorted(chosen | there | missing), True
        return sorted(there | missing - unseen), False

    @property
    def source_name(self) -> str:
        """Of the run."""
        assert self.source
        return self.source.name

    def is_there(self, step: int) -> bool:
        """Whether the checkpoint is complete, as far as its name and manifest say."""
        return self.source is None or step in self.source.checkpoint_steps()

    def why_gone(self, step: int) -> str:
        """Of a step that is not there."""
        assert self.source
        self._read_events()
        aside = sorted(path.name for path in self.source.checkpoints_dir.glob(f"step-{step}.*-*"))
        if aside:
            return f"it was set aside as {aside[-1]} of {self.source.name}"
        if step in self._saved:
            return (
                f"{self.source.name} had deleted it before it was scored, as its `checkpoint.keep` says; "
                "write `checkpoint.keep_every` there, and those of every so many steps stay"
            )
        return f"{self.source.name} has ended without it; it saves every `checkpoint.every` steps and at its end"

    def _choose(self) -> Chosen:
        now = time.time()
        if self.source is None:
            return Chosen(steps=(0,), time=now)
        there = self.source.checkpoint_steps()
        if self._wanted.follow:
            named = self._wanted.steps or [step for step in there if self._wanted.takes(step)]
        else:
            named = self._named(self.source, there)
        return Chosen(steps=tuple(sorted(set(named))), time=now)

    def _named(self, source: RunDir, there: list[int]) -> list[int]:
        """Raises Refused."""
        from xgen.train.source import complete_ones

        self._read_events()
        never = [step for step in self._wanted.steps if step not in there and step not in self._saved]
        if self._wanted.steps and not never:
            return self._wanted.steps
        there = [checkpoint.step for checkpoint in reversed(complete_ones(source, None, _KEY))]
        known = ", ".join(map(str, there[-12:]))
        if never:
            said = f"{source.name} has no complete checkpoint of step {never[0]}; write one of {known}"
            raise Refused(f"checkpoints.steps: {said}")
        if self._wanted.every is None:
            return there[-1:]
        if named := [step for step in there if self._wanted.takes(step)]:
            return named
        said = f"none of {known}, the steps of {source.name}, is {_multiple(self._wanted)}; write a divisor of one"
        raise Refused(f"checkpoints.every: {said}")

    def _read_events(self) -> None:
        assert self._reader
        for event in self._reader.new():
            if event.event == "checkpoint_durable" and event.step is not None:
                self._saved[event.step] = event.time


def _multiple(wanted: Checkpoints) -> str:
    begin = f" from {wanted.first} on" if wanted.first else ""
    end = "" if wanted.last is None else f" up to {wanted.last}"
    return f"a multiple of {wanted.every}{begin}{end}"


def beginning_of(job: Evaluate, source: RunDir | None, step: int) -> Beginning:
    """The weights of a checkpoint of `source`, or of the Hugging Face folder. Raises Refused, and FileNotFoundError
    where it is gone."""
    from xgen.train.manifest import MANIFEST, checksum, manifest_fingerprint

    if source is None:
        from xgen.train.weights import hf_files, hf_fingerprint, open_hf

        place = Path(job.checkpoints.hf or "")
        fingerprint = hf_fingerprint(checksum(file) for file in hf_files(place, open_hf(place)))
        return Beginning(run=None, path=str(place), step=None, fingerprint=fingerprint, time=time.time())
    folder = source.checkpoints_dir / f"step-{step}"
    fingerprint = manifest_fingerprint(folder)
    if not fingerprint:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder / MANIFEST))
    return Beginning(run=source.name, path=str(source.path), step=step, fingerprint=fingerprint, time=time.time())


def fault_of(source: RunDir, step: int) -> str:
    """The first fault of a checkpoint, of which every byte is read; '' for none, and for one that is gone."""
    from xgen.train.ckpt_admin import check, survey

    found = [one for one in survey(source) if one.name == f"step-{step}"]
    return next((fault for one in check(found) for fault in one.faults), "")
