"""One small model, by our code and by transformers'."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.model.parity import SMALL, hugging_face, titan
from xgen.model.hf import Context
from xgen.spec import ModelSpec

SPEC = ModelSpec.model_validate(SMALL | {"num_kv_heads": 2})
SEQ_LEN = 64


class Twins:
    """The policy and a reference, each as ours and as transformers'."""

    def __init__(self) -> None:
        self.ours, self.theirs = self._both(0)
        self.our_reference, self.their_reference = self._both(1)

    @staticmethod
    def _both(seed: int) -> tuple[Any, Any]:
        ours = titan(SPEC, SEQ_LEN, seed=seed)
        context = Context(SEQ_LEN, 1e4, None, "float32", eos=2, pad=0)
        return ours, hugging_face(SPEC, ours.state_dict(), context).train()  # neither has dropout

    def change(self, seed: int, std: float) -> None:
        """Both policies, by the same amount."""
        from xgen.model.hf import hf_name, parameter_shapes, to_hf

        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in self.ours.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=std)
        state = self.ours.state_dict()
        self.theirs.load_state_dict({hf_name(n): to_hf(n, state[n], SPEC) for n in parameter_shapes(SPEC)})


@pytest.fixture
def twins() -> Twins:
    torch.set_num_threads(1)
    return Twins()
