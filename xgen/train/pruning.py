"""Letting go of checkpoints that no rule keeps. Rank 0 only; the deleting itself is the writer process's work."""

from __future__ import annotations

from pathlib import Path

from torchtitan.tools.logging import logger

from xgen.runs import RunDir
from xgen.train.manifest import Fault, Manifest
from xgen.train.restore import set_aside_to_delete
from xgen.train.retention import Summary, keep_steps
from xgen.train.writer import Writer


class Pruner:
    """Remembers the losses of the checkpoints, so that pruning reads no manifest twice. `ends` are steps that always
    stay: the last ones of the stages."""

    def __init__(
        self, run: RunDir, writer: Writer, rules: tuple[int, int, int], ends: frozenset[int] = frozenset()
    ) -> None:
        self._run, self._writer = run, writer
        self._rules, self._ends = rules, ends  # keep, keep_every, keep_best
        self._summaries: dict[int, Summary] = {}

    def prune_after(self, durable: Summary) -> None:
        """To be called once its successor is durable, never before. Broken ones do not count."""
        self._summaries[durable.step] = durable
        steps = self._run.checkpoint_steps()
        leaving = []
        kept = keep_steps([self._summary(step) for step in steps], *self._rules) | self._ends
        for step in sorted(set(steps) - kept):
            try:
                leaving.append(set_aside_to_delete(self._run.checkpoints_dir / f"step-{step}"))
            except OSError as error:
                logger.error("cannot delete checkpoint step-%d: %s", step, error)
            self._summaries.pop(step, None)
        self.delete(leaving)

    def delete(self, folders: list[Path]) -> None:
        """In the writer process: a slow file system must not stall the training."""
        if not folders:
            return
        try:
            self._writer.delete(folders)
        except OSError as error:
            logger.error("cannot delete %s: %s", ", ".join(folder.name for folder in folders), error)

    def _summary(self, step: int) -> Summary:
        if step not in self._summaries:
            try:
                self._summaries[step] = Summary(step, Manifest.read(self._run.checkpoints_dir / f"step-{step}").loss)
            except Fault:
                return Summary(step, None)
        return self._summaries[step]
