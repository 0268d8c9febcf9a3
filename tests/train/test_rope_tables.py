"""All layers of a rank have one table of rotary embeddings, and train as with one each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.train.forked import Training
from xgen.runs import RunDir


def _go(folder: Path, parallelism: dict[str, int], shared: bool) -> Training:
    training = Training(RunDir(folder / f"nano-{'shared' if shared else 'single'}"))
    training.change("model", "num_layers", 4)
    training.change("model", "num_kv_heads", 2)
    training.change("stages", 0, "parallelism", parallelism)
    training.change("stages", 0, "tokens", 3 * 256)

    def look(rank: int) -> None:
        from torch.distributed.tensor import DTensor
        from torchtitan.models.common.rope import RoPE

        from xgen.train import trainer

        if not shared:
            trainer.share_rope_tables = lambda _: None  # type: ignore[attr-defined, assignment]
        train = trainer.JobTrainer._train

        def looking(self: trainer.JobTrainer) -> trainer.TrainResult:
            result = train(self)
            ropes = [module for part in self.model_parts for module in part.modules() if isinstance(module, RoPE)]
            local = [rope.cache.to_local() if isinstance(rope.cache, DTensor) else rope.cache for rope in ropes]
            tables = {table.untyped_storage().data_ptr() for table in local}
            (folder / f"{shared}.{rank}").write_text(f"{len(ropes)} {len(tables)}")
            return result

        trainer.JobTrainer._train = looking  # type: ignore[method-assign]

    assert {o.status for o in training.go(in_rank=look)} == {"finished"}, training._log()
    return training


@pytest.mark.parametrize("parallelism", [{"fsdp": 2}, {"tp": 2}, {"pp": 2}], ids=lambda p: next(iter(p)))
def test_they_share_one(_warm: None, tmp_path: Path, parallelism: dict[str, int]) -> None:
    one, each = (_go(tmp_path, parallelism, shared) for shared in (True, False))
    layers = 4 // parallelism.get("pp", 1)
    assert {(tmp_path / f"True.{rank}").read_text() for rank in (0, 1)} == {f"{layers} 1"}
    assert {(tmp_path / f"False.{rank}").read_text() for rank in (0, 1)} == {f"{layers} {layers}"}
    assert one.losses() == each.losses()
