"""What a wrong value of a post-training spec is answered with: the key as it was written, and what may stand there."""

from __future__ import annotations

import pytest

from tests.conftest import ROOT
from xgen.spec import SpecError, load_job

SAID = {
    "a kind that there is not": ("rewards.math={kind: mathh}", "rewards.math.kind: 'mathh' is not known; write math"),
    "of a list": ("rewards.math=[{kind: exakt}]", "rewards.math[0].kind: 'exakt' is not known; write exact"),
    "no kind": ("rewards.math={weight: 1}", "rewards.math.kind: is missing; add it"),
    "a key of one kind": (
        "rewards.math={kind: length, free: 1, most: 2, mos: 3}",
        "rewards.math.mos: unknown key; write most",
    ),
    "a key below a name": (
        "prompts.sources.math={path: /x, wight: 2}",
        "prompts.sources.math.wight: unknown key; write weight",
    ),
    "a value of one kind": (
        "rewards.math={kind: function, function: mine}",
        "rewards.math.function: 'mine' names no function; write MODULE:FUNCTION",
    ),
    "an address": (
        "rewards.math={kind: model, url: 'judge:8000/score'}",
        "rewards.math.url: 'judge:8000/score' is no address; write http://HOST:PORT/v1/score, or https://…",
    ),
    "what is lacking": ("rewards.math={kind: length, free: 10}", "rewards.math.most: is missing; add it"),
    "null": ("train.lr=null", "train.lr: null is not a mapping; write keys and values below it"),
    "a number as weights": (
        "init=7",
        "init: 7 names no weights; write the name of a run, {run, step}, or {hf: FOLDER}",
    ),
}


@pytest.mark.parametrize(("setting", "said"), SAID.values(), ids=SAID)
def test_a_wrong_value_is_named_where_it_was_written(setting: str, said: str) -> None:
    with pytest.raises(SpecError) as refused:
        load_job(ROOT / "jobs/tiny/grpo.yaml", [setting])
    assert str(refused.value) == f"--set: {said}"


def test_a_key_of_another_loss_is_refused() -> None:
    with pytest.raises(SpecError, match=r"loss\.margin: dpo has none; leave it out, or write kind: simpo"):
        load_job(ROOT / "jobs/tiny/dpo.yaml", ["loss.kind=dpo", "loss.margin=2"])
    load_job(ROOT / "jobs/tiny/dpo.yaml", ["loss.kind=simpo", "loss.margin=2"])
