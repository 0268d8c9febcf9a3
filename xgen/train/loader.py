"""The data loader: every rank takes its part of a step by the global sample number, which is all its state."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch
from torchtitan.components.dataloader import BaseDataLoader

from xgen.data import MODULUS, batch_digest, samples_of
from xgen.data.samples import Batch
from xgen.spec import Place, Trained
from xgen.train.microbatch import Given

Prepared = tuple[dict[str, torch.Tensor], torch.Tensor, int]  # inputs, labels, digest


class StepLoader(BaseDataLoader):
    """What a trainer asks of its loader. Where it stands is one number, `next_sample`, at the edge of a step.

    `digest` is the sum of the digests of what was handed out and not yet taken by `take_digest`.
    """

    fingerprint: str  # of the order that the samples are numbered in

    def __init__(self, place: Place) -> None:
        self._first_step = place.first_step
        self.per_step = place.stage.sequences_per_step
        self._digest = 0
        self.next_sample = 0  # number in the stage of the first sample of the next step

    @property
    def first_sample(self) -> int:
        """Of the step before."""
        return self.next_sample - self.per_step

    @abstractmethod
    def __iter__(self) -> Iterator[Given]: ...

    @abstractmethod
    def taken(self) -> dict[str, int]:
        """Tokens of each component, over all ranks, up to the step that is under way; empty where nobody counts them.
        For another thread: it only looks."""

    def take_digest(self) -> int:
        """Sum of the digests of all that was handed out since it was last asked."""
        digest, self._digest = self._digest, 0
        return digest

    def begin_at_step(self, step: int) -> None:
        """Go on as if all steps of this stage up to `step`, of the run, had been taken from this very data."""
        self.next_sample = self.planned(step)

    def planned(self, step: int) -> int:
        """`next_sample` after a step of the run when nothing was left out."""
        return (step - self._first_step) * self.per_step

    def state_dict(self) -> dict[str, Any]:
        return {"next_sample": self.next_sample}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.next_sample = state_dict["next_sample"]


class StoreLoader(StepLoader):
    """Micro-batches of one data-parallel rank: of the S sequences of a step, rank r takes r*S/W to (r+1)*S/W."""

    @dataclass(kw_only=True, slots=True)
    class Config(BaseDataLoader.Config):
        job: Any = None  # a Trained: torchtitan's parser of configurations knows no pydantic
        stage: int = 0  # index in its jobs
        run: Path | None = None  # its directory
        workers: int = 1
        prefetch: int = 4

    def __init__(self, config: Config, *, dp_world_size: int, dp_rank: int, local_batch_size: int, **_: Any) -> None:
        job: Trained = config.job
        super().__init__(job.place_of(config.stage))
        self.samples = samples_of(job, config.stage, config.run)
        self.fingerprint = self.samples.fingerprint
        self._per_rank = self.per_step // dp_world_size
        self._first = dp_rank * self._per_rank
        self._micro_batch = local_batch_size
        self._workers, self._prefetch = config.workers, config.prefetch

    def __iter__(self) -> Iterator[Given]:
        """Inputs and labels [micro_batch, seq_len] of int64, positions of int32, and what else a batch of the samples
        has, without end."""
        offsets = range(0, self._per_rank, self._micro_batch)
        first = self.next_sample
        starts = (first + step * self.per_step + self._first + offset for step in count() for offset in offsets)
        with self._threads() as threads:
            for number, (inputs, labels, digest) in enumerate(self._prepared(starts, threads), start=1):
                self._digest = (self._digest + digest) % MODULUS
                if number % len(offsets) == 0:
                    # Before the last yield: what follows it may be the save of this very step.
                    self.next_sample += self.per_step
                yield inputs, labels

    def _threads(self) -> AbstractContextManager[ThreadPoolExecutor | None]:
        return ThreadPoolExecutor(self._workers, thread_name_prefix="data") if self._workers else nullcontext()

    def _prepared(self, starts: Iterator[int], threads: ThreadPoolExecutor | None) -> Iterator[Prepared]:
        """In the order of `starts`, whatever thread is done first."""
        if threads is None:
            yield from map(self._prepare, starts)
            return
        ahead: deque[Future[Prepared]] = deque(threads.submit(self._prepare, s) for s in islice(starts, self._prefetch))
        try:
            while True:
                ready = ahead.popleft().result()
                ahead.append(threads.submit(self._prepare, next(starts)))
                yield ready
        finally:
            for future in ahead:
                future.cancel()

    def _prepare(self, start: int) -> Prepared:
        batch = self.samples.batch(start, self._micro_batch)
        return *as_given(batch), batch_digest(start, batch)

    def taken(self) -> dict[str, int]:
        return self.samples.taken(self.next_sample)


def as_given(batch: Batch) -> Given:
    """The batch as tensors: token ids of int64, as the model asks for them."""
    inputs = {
        "input": torch.from_numpy(batch.tokens).long(),
        "positions": torch.from_numpy(batch.positions.copy()),
    }
    extras = (field.name for field in fields(batch) if field.name not in ("tokens", "labels", "positions"))
    inputs |= {name: torch.from_numpy(getattr(batch, name)) for name in extras}
    return inputs, torch.from_numpy(batch.labels).long()
