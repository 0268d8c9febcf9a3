"""Every rank of a sharded training gets whole weights, which an engine takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.train.forked import Training, warm_up
from xgen.runs import RunDir


@pytest.mark.parametrize("parallelism", [{"fsdp": 2}, {"tp": 2}, {"fsdp": 1, "replicate": 2}], ids=str)
def test_they_are_those_of_the_training_in_every_rank(tmp_path: Path, parallelism: dict[str, int]) -> None:
    warm_up()
    training = Training(RunDir(tmp_path / "nano-aaaaaa"))
    training.change("stages", 0, "parallelism", parallelism)
    training.change("stages", 0, "tokens", 2 * 256)
    training.change("model", "num_kv_heads", 2)
    training.change("model", "qk_norm", True)

    def look(rank: int) -> None:
        import torch
        from torch.distributed.tensor import DTensor
        from torchtitan.components.checkpointer.base import ModelWrapper

        from xgen.engine.inprocess import InProcessEngine
        from xgen.engine.weights import full_weights
        from xgen.model.hf import parameter_shapes
        from xgen.train import trainer

        train = trainer.JobTrainer._train

        def looking(self: trainer.JobTrainer) -> trainer.TrainResult:
            result = train(self)
            whole = dict(full_weights(self.model_parts[0]))
            expected = ModelWrapper(self.model_parts).state_dict()
            assert whole.keys() == expected.keys() == parameter_shapes(self.job.model).keys()
            for name, value in expected.items():
                assert torch.equal(whole[name], value.full_tensor() if isinstance(value, DTensor) else value), name
            engine = InProcessEngine(self.job.model, 64, 1e4, at_once=2)
            engine.load(3, full_weights(self.model_parts[0]))
            (tmp_path / f"seen.{rank}").write_text(str(engine.version))
            return result

        trainer.JobTrainer._train = looking  # type: ignore[method-assign]

    assert {outcome.status for outcome in training.go(in_rank=look)} == {"finished"}, training._log()
    assert [(tmp_path / f"seen.{rank}").read_text() for rank in (0, 1)] == ["3", "3"]
