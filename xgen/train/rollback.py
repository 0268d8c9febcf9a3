"""Back to the newest checkpoint, and on with other data: what lies between is left out, also by the next attempt.

The folder of the checkpoint remembers it, in a file that is not in its manifest: so it is forked, set aside and deleted
with the checkpoint, and gone when that step is saved anew.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict

from xgen.runs import write_atomic

if TYPE_CHECKING:
    from xgen.train.trainer import JobTrainer

_FILE = "skip.json"


class Skip(BaseModel):
    """Samples that are left out after a checkpoint, and what the guard knows of why."""

    model_config = ConfigDict(frozen=True)

    data: str  # fingerprint of the order that the samples are numbered in
    next_sample: int
    acted: tuple[int, ...]  # StepGuard.acted: a training that goes back again and again must end

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """None where nothing is left out. Raises OSError, and ValidationError for a file that is no such."""
        try:
            return cls.model_validate_json((folder / _FILE).read_bytes())
        except FileNotFoundError:
            return None

    def apply(self, trainer: JobTrainer) -> None:
        """To what was just loaded; a fork may have changed the order."""
        if self.data == trainer.dataloader.fingerprint:
            trainer.dataloader.next_sample = self.next_sample
            trainer.guard.acted = self.acted

    def write(self, folder: Path) -> None:
        """Without room for it the training goes on: only an attempt that ends before the next save reads them again."""
        try:
            write_atomic(folder / _FILE, self.model_dump_json() + "\n")
        except OSError as error:
            print(f"cannot record what the rollback leaves out: {error}", file=sys.stderr, flush=True)


def roll_back(trainer: JobTrainer) -> int:
    """To the newest checkpoint, which there is, and on with the samples after those of this step. Returns its step."""
    loader, failed, next_sample = trainer.dataloader, int(trainer.step), trainer.dataloader.next_sample
    acted = trainer.guard.acted
    trainer.tell("restore_begin", step=failed)
    trainer.wait_for_others(trainer.config.comm.init_timeout_seconds)  # until the first step after it
    trainer.checkpointer.load_again()
    name, skipped = f"step-{trainer.step}", next_sample - loader.next_sample
    skip = Skip(data=loader.fingerprint, next_sample=next_sample, acted=acted)
    skip.apply(trainer)
    if trainer.context.rank == 0:
        skip.write(trainer.context.run.checkpoints_dir / name)
    reason = f"back from step {failed}, {skipped} samples are left out"
    if trainer.place.index + 1 < len(trainer.job.places):
        # Where a stage begins in a text follows from the plans of those before it, not from what they left out.
        ahead = next_sample - loader.planned(trainer.step)
        reason += f"; this stage ends {ahead} samples past its plan, and a later one with the same text has them again"
    trainer.tell("restore_end", step=trainer.step, checkpoint=name, reason=reason)
    return int(trainer.step)
