"""The plans of post-trainings: what each phase computes and holds, and what is refused."""

from __future__ import annotations

from math import prod
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from xgen.plan import check, plans
from xgen.plan.numbers import Plan
from xgen.plan.tuned import num_adapters
from xgen.spec import Lora, ModelSpec, Profile, Tuned, load_job

SPECS = [(size, kind) for size in ("4b", "9b") for kind in ("sft", "dpo", "rl")]


def phases(size: str, kind: str, profile: Profile, *overrides: str) -> dict[str, Plan]:
    job = load_job(ROOT / f"jobs/{size}/{kind}.yaml", overrides).job
    assert isinstance(job, Tuned)
    return {one.stage: one for one in plans(job, profile)}


def problems(kind: str, profile: Profile, *overrides: str) -> list[str]:
    return [str(p) for p in check(load_job(ROOT / f"jobs/9b/{kind}.yaml", overrides), profile, stores=False)]


@pytest.mark.parametrize(("size", "kind"), SPECS)
def test_the_real_specs_make_sense_and_fit(size: str, kind: str, profile: Profile) -> None:
    loaded = load_job(ROOT / f"jobs/{size}/{kind}.yaml")
    assert check(loaded, profile, stores=False) == []
    train = phases(size, kind, profile)["train"]
    assert train.memory and train.memory.total < 0.9 * 80 * 2**30
    assert train.stop_seconds < train.stop_budget
    assert train.gpu_hours > 0 and train.checkpoint_bytes == 12 * train.num_parameters


def test_each_phase_has_its_gpu_hours(profile: Profile) -> None:
    sft, dpo, rl = (phases("9b", kind, profile) for kind in ("sft", "dpo", "rl"))
    assert list(sft) == ["prepare", "train"] and sft["prepare"].gpu_hours == 0
    assert list(dpo) == ["prepare", "reference", "train"]
    # A pass forward beside one forward, one backward and a second one of the output layer.
    assert 0.25 < dpo["reference"].gpu_hours / dpo["train"].gpu_hours < 0.34
    assert list(rl) == ["rollout", "train"]
    assert rl["rollout"].num_ranks == rl["train"].num_ranks == 32  # four servers of eight GPUs
    assert rl["rollout"].train_seconds == rl["train"].train_seconds  # they last as long as the training does
    assert rl["rollout"].tokens == 1000 * 128 * 16 * 12288


def test_answers_beside_the_training_cost_what_takes_longer_and_before_it_the_sum(profile: Profile) -> None:
    beside, before = (phases("9b", "rl", profile, f"rollout.staleness={n}")["train"] for n in (1, 0))
    assert before.step_seconds > beside.step_seconds
    assert before.step_seconds == pytest.approx(
        before.generate_seconds + phases("9b", "rl", profile, "rollout.prompts=1")["train"].step_seconds, rel=1e-3
    )


def test_without_servers_the_engine_is_in_the_memory_of_the_trainer(profile: Profile) -> None:
    own = phases("4b", "rl", profile, "rollout.servers=null")
    assert list(own) == ["train"] and own["train"].memory
    assert own["train"].memory.engine > 2 * own["train"].num_parameters
    assert own["train"].generate_seconds > 0


def test_adapters_alone_have_moments_and_are_saved(profile: Profile) -> None:
    whole, adapted = (phases("9b", "sft", profile, *keys)["train"] for keys in ((), ("lora={rank: 16, alpha: 32}",)))
    assert whole.memory and adapted.memory
    assert adapted.memory.state < 0.3 * whole.memory.state  # of 16 bytes a parameter four are left
    assert adapted.num_trained < 0.01 * adapted.num_parameters
    assert adapted.checkpoint_bytes == 12 * adapted.num_trained
    assert 0.6 < adapted.flops / whole.flops < 0.8  # no gradient of the frozen matrices


@pytest.mark.parametrize("targets", [["attention"], ["feed_forward"], ["attention", "feed_forward"]])
def test_adapters_are_counted_as_they_are_built(targets: list[str]) -> None:
    from xgen.model.lora import adapter_shapes

    model, lora = ModelSpec.model_validate("tiny"), Lora.model_validate({"rank": 3, "alpha": 1, "targets": targets})
    assert num_adapters(model, lora) == sum(map(prod, adapter_shapes(model, lora).values()))


def test_a_frozen_reference_is_one_more_copy_in_shards_and_one_more_pass(profile: Profile) -> None:
    stored, frozen = (phases("9b", "dpo", profile, f"reference={how}")["train"] for how in ("stored", "frozen"))
    assert stored.memory and frozen.memory
    assert frozen.memory.total - stored.memory.total == stored.memory.parameters
    assert 1.25 < frozen.flops / stored.flops < 1.34
    assert "reference" not in phases("9b", "dpo", profile, "loss={kind: simpo, beta: 2}")


def test_what_does_not_fit_is_refused_by_the_words_of_the_spec(profile: Profile) -> None:
    assert (
        "train.sequences: 9 sequences do not divide over 8 ranks with micro_batch 1; write a multiple of 8"
        in (problems("sft", profile, "train.sequences=9")[0])
    )
    assert "train.parallelism.tp: 3 does not divide" in problems("sft", profile, "train.parallelism.tp=3")[0]
    (said,) = problems("sft", profile, "train.activation_checkpointing=none", "train.seq_len=128k")
    assert said.endswith("write activation_checkpointing: full")
    assert "train.lr.warmup: 9000 steps are more than" in problems("sft", profile, "train.lr.warmup=9000")[0]
    assert "single.time" in problems("sft", profile, "single.time=90d")[0]


def test_the_run_that_weights_come_from_is_asked_at_submission(tmp_path: Path, profile: Profile) -> None:
    here = profile.model_copy(update={"run_root": str(tmp_path)})
    loaded = load_job(ROOT / "jobs/9b/sft.yaml")
    said = [str(problem) for problem in check(loaded, here)]
    assert any("init.run: " in one and "is no run directory" in one for one in said)
    assert any("data.tokenizer: /shared/tokenizer is not there" in one for one in said)
    parent = tmp_path / "xgen-9b-aaaaaa"
    parent.mkdir()
    other = load_job(ROOT / "jobs/4b/pretrain.yaml").job.model_dump(mode="json")
    (parent / "spec.yaml").write_text(yaml.safe_dump(other))
    assert any("model.dim: 4096, and xgen-9b-aaaaaa has 3072" in str(problem) for problem in check(loaded, here))
