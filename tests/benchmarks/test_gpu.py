"""What of the GPU's benchmark a CPU can do: the reference, a backend that is wrong, the layers."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml

from benchmarks import gpu, gpu_train
from xgen.plan.memory import memory
from xgen.spec import Pretrain, load_resolved
from xgen.spec.models import MODELS

TINY = {"dim": 64, "num_heads": 4, "num_kv_heads": 2, "ffn_dim": 96, "vocab_size": 512}


def test_a_right_backend_passes_and_one_that_ignores_documents_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu.check("sdpa", "cpu", length=256).ok

    def over_documents(documents: list[int], device: str) -> Any:
        return partial(F.scaled_dot_product_attention, is_causal=True, enable_gqa=True)

    monkeypatch.setitem(gpu.BACKENDS, "sdpa", over_documents)
    wrong = gpu.check("sdpa", "cpu", length=256)
    assert not wrong.ok
    assert wrong.error > 0.1


@pytest.mark.parametrize("backend", ["flex", "varlen", "flash"])
def test_what_a_cpu_has_not_is_said(backend: str) -> None:
    with pytest.raises(NotImplementedError, match="CPU"):
        gpu.check(backend, "cpu")


def test_the_stack_learns_and_is_timed() -> None:
    torch.manual_seed(0)
    run = gpu.measure(TINY, 2, 256, "sdpa", "cpu")
    assert len(run.tokens_per_second) == gpu.REPEATS
    stack = gpu.Stack(TINY, 2)
    tokens = torch.randint(0, 512, (1, 256))
    cos, sin = torch.ones(256, 16), torch.zeros(256, 16)
    attend = gpu.sdpa(gpu.documents_of(256), "cpu")
    loss = stack(tokens, cos, sin, attend)
    assert float(loss) / 256 == pytest.approx(6.4, abs=0.4)  # ln 512 is 6.2
    loss.backward()
    with torch.no_grad():
        for parameter in stack.parameters():
            assert parameter.grad is not None
            parameter.sub_(parameter.grad, alpha=1e-3)
    assert stack(tokens, cos, sin, attend) < loss


@pytest.mark.parametrize(("model", "parameters"), [("xgen-4b", 4.15e9), ("xgen-9b", 9.13e9)])
def test_flops_are_six_a_parameter_at_length_zero(model: str, parameters: float) -> None:
    """The embedding's table multiplies nothing."""
    sizes = MODELS[model]
    multiplied = parameters - sizes["vocab_size"] * sizes["dim"]
    assert gpu.flops_of_token(sizes, sizes["num_layers"], 0) == pytest.approx(6 * multiplied, rel=2e-3)


@pytest.mark.parametrize("case", sorted(gpu_train.CASES))
def test_every_case_of_the_trainer_is_a_whole_spec(case: str, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(gpu_train._spec(case, tmp_path)))
    job = load_resolved(tmp_path / "spec.yaml")
    assert isinstance(job, Pretrain)
    assert memory(job.model, job.places[0]).total < 141e9  # an H200
