"""A shard of the job array `reference`: the model of the training, with its layout, and no step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray

from xgen.data.chat.prepare import chat_store, open_store
from xgen.data.samples import IGNORE
from xgen.posttrain.preference.pair_trainer import PairTrainer
from xgen.posttrain.preference.reference import ENTRY, Block, blocks_of, reference_folder
from xgen.runs import RunDir
from xgen.runs.shards import mark_durable
from xgen.spec import Trained
from xgen.train.init import load_initial
from xgen.train.loader import StoreLoader, as_given
from xgen.train.microbatch import Given
from xgen.train.together import from_all
from xgen.train.trainer import JobTrainer, TrainResult


class ReferenceTrainer(PairTrainer):
    """Takes every n-th block; done ones are left as they are."""

    @classmethod
    def adapt(cls, config: JobTrainer.Config, job: Trained) -> JobTrainer.Config:
        config = super().adapt(config, job)
        assert isinstance(config.dataloader, StoreLoader.Config)
        assert config.dataloader.run
        config.dataloader.run = RunDir(Path(config.dataloader.run)).whole.path
        return config

    def make_validation(self) -> None:
        return None

    def fit(self) -> TrainResult:
        whole = self.context.run.whole
        beginning = load_initial(self, self.model_parts)
        store = open_store(self.job, chat_store(self.job, whole.path))
        self.context.progress.enter("work")
        blocks = list(blocks_of(store, reference_folder(whole, store, beginning)))
        result = self._take(blocks[self.context.shard :: self.context.num_shards])
        dist.barrier(group=self.cpu_group)
        return result

    def _take(self, mine: list[Block]) -> TrainResult:
        for number, block in enumerate(mine):
            if not all(from_all(self, block.is_done)):
                entries = self._compute(block)
                if entries is None:
                    return TrainResult("stopped", number, self._agreement.signal)
                if self.context.rank == 0:
                    block.write(entries)
            if self.context.rank == 0:
                mark_durable(self.context.run, number + 1)
        return TrainResult("finished", len(mine))

    def _compute(self, block: Block) -> NDArray[np.void] | None:
        """None when the ranks agree to stop."""
        mesh = self.parallel_dims.get_optional_mesh("batch")
        ranks, rank = (mesh.size(), mesh.get_local_rank()) if mesh is not None else (1, 0)
        rows = self.place.stage.micro_batch
        found = []
        for first in range(block.first, block.end, ranks * rows):
            self._agreement.begin()
            given = _rows(block, first + rank * rows, rows)
            values = self.answer_logprobs(given).cpu().numpy()
            pairs = given[0]["pairs"].numpy()
            entries = np.empty(int((pairs >= 0).sum()), dtype=ENTRY)
            entries["pair"] = pairs[pairs >= 0]
            entries["chosen"], entries["rejected"] = values[pairs >= 0].T
            found.append(entries)
            self._agreement.end()
            self.context.progress.touch()
            if self._agreement.signal:
                return None
        entries = np.concatenate(from_all(self, np.concatenate(found)))
        # Ranks that share their sequences have all the same pairs.
        return entries[np.unique(entries["pair"], return_index=True)[1]]


def _rows(block: Block, first: int, count: int) -> Given:
    """Beyond the end of the block there is nothing: a rank more than rows computes for the others' sake."""
    inputs, labels = as_given(block.samples.batch(first, count))
    beyond = max(0, block.end - first)
    labels[beyond:] = IGNORE
    inputs["answers"][beyond:], inputs["pairs"][beyond:] = -1, -1
    return inputs, labels
