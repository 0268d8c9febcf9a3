"""torchtitan's model computes what transformers' computes with the same weights, however positions turn."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from tests.model.parity import SMALL, hugging_face, titan, titan_logits
from xgen.model.hf import Context
from xgen.spec import ModelSpec, RopeScaling

LENGTH = 128
YARN = RopeScaling(factor=8, original=16)
CASES: dict[str, tuple[dict[str, Any], float, RopeScaling | None]] = {
    "plain": ({}, 1e4, None),
    "grouped queries": ({"num_kv_heads": 2}, 1e4, None),
    "another base": ({}, 1.28e8, None),
    "yarn": ({"num_kv_heads": 2}, 1e4, YARN),
    "yarn of another ramp": ({}, 5e5, YARN.model_copy(update={"beta_fast": 8.0, "beta_slow": 0.5})),
    "qk norm": ({"qk_norm": True, "num_kv_heads": 2}, 1e4, None),
    "qk norm, yarn, another eps": ({"qk_norm": True, "norm_eps": 1e-2}, 1.28e8, YARN),
}


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_transformers(case: str, caplog: pytest.LogCaptureFixture) -> None:
    sizes, theta, scaling = CASES[case]
    spec = ModelSpec(**SMALL | sizes)
    model = titan(spec, LENGTH, theta, scaling)
    logging.getLogger("transformers").addHandler(caplog.handler)  # its messages do not reach the root
    other = hugging_face(spec, model.state_dict(), Context(LENGTH, theta, scaling, "float32", eos=0))
    logging.getLogger("transformers").removeHandler(caplog.handler)
    assert caplog.messages == []  # no key of ours that transformers does not know, or thinks odd
    tokens = torch.randint(spec.vocab_size, (2, LENGTH), generator=torch.Generator().manual_seed(1))
    ours = titan_logits(model, tokens)
    with torch.no_grad():
        theirs = other(tokens).logits
    assert ours.std() > 0.3  # else nothing would differ
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("seq_len", [16, 128])
def test_yarn_applies_whether_or_not_the_sequence_is_longer_than_before(seq_len: int) -> None:
    spec = ModelSpec(**SMALL)
    plain, yarn = (titan(spec, seq_len, 1e4, scaling) for scaling in (None, YARN))
    rates = [model.layers["0"].attention.rope.cache[1].angle() for model in (plain, yarn)]  # type: ignore[index]
    slower = rates[0] / rates[1]
    assert slower[0] == pytest.approx(1)  # the fastest pair turns as before,
    assert slower[-1] == pytest.approx(8)  # the slowest by the factor
    assert bool((slower.diff() > -1e-4).all())


def test_every_norm_has_the_eps_of_the_model() -> None:
    model = titan(ModelSpec(**SMALL | {"qk_norm": True, "norm_eps": 1e-3}), LENGTH)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.RMSNorm)]
    assert {norm.eps for norm in norms} == {1e-3}
    assert len(norms) == 2 * 4 + 1


def test_the_parameters_are_as_many_as_the_spec_says() -> None:
    for qk_norm in (False, True):
        spec = ModelSpec(**SMALL | {"qk_norm": qk_norm, "num_kv_heads": 2})
        assert sum(p.numel() for p in titan(spec, LENGTH).parameters()) == spec.num_parameters
