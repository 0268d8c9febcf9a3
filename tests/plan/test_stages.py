"""The plan of every stage: memory, the best checkpoint interval, and what is refused with what to write instead."""

from __future__ import annotations

import pytest

from tests.conftest import ROOT
from xgen.plan import check, plans, warnings
from xgen.plan.failures import best_saving, ettr
from xgen.spec import Pretrain, Profile, SpecError, load_job


def problems(size: str, profile: Profile, *overrides: str) -> list[str]:
    return [str(p) for p in check(load_job(ROOT / f"jobs/{size}/pretrain.yaml", overrides), profile, stores=False)]


@pytest.mark.parametrize(("size", "parameters"), [("4b", 4.15e9), ("9b", 9.13e9)])
def test_the_real_specs_make_sense(size: str, parameters: float, profile: Profile) -> None:
    assert problems(size, profile) == []
    loaded = load_job(ROOT / f"jobs/{size}/pretrain.yaml")
    stages = plans(loaded.job, profile)
    assert [stage.stage for stage in stages] == ["broad", "anneal", "extend-32k", "extend-128k"]
    for stage in stages:
        assert stage.num_parameters == pytest.approx(parameters, rel=2e-3)
        assert stage.num_ranks == 128
        assert stage.memory
        assert stage.memory.total < 0.9 * 80 * 2**30
    # 16 bytes a parameter over FSDP's ranks, and over those of CP, which torchtitan shards over too.
    assert stages[0].memory
    assert stages[0].memory.state == 16 * stages[0].num_parameters / 8
    assert stages[3].memory
    assert stages[3].memory.state == 16 * stages[3].num_parameters / 128
    assert warnings(loaded, profile) == []


def test_what_does_not_fit_is_refused_with_what_would(profile: Profile) -> None:
    (said,) = problems("9b", profile, "stages.0.activation_checkpointing=none", "stages.0.micro_batch=4",
                       "stages.1.micro_batch=1", "stages.1.activation_checkpointing=selective")  # fmt: skip
    assert "stages[0]: broad needs about" in said
    fix = said.partition("write ")[2]
    assert fix == "micro_batch: 1"
    assert problems("9b", profile, "stages.0.activation_checkpointing=none", "stages.0.micro_batch=1") == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.3.parallelism={fsdp: 1, cp: 128, replicate: 1}", ""),
        (
            "stages.3.rope_scaling={factor: 2, original: 32k}",
            "2 times 32768 is less than seq_len 262144; write 8 or more",
        ),
        ("stages.1.lr={shape: linear, to: 1}", "1 is above the peak 0.0003"),
    ],
)
def test_each_stage_is_checked(override: str, message: str, profile: Profile) -> None:
    said = problems("9b", profile, override)
    assert any(message in problem for problem in said) if message else said == []


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["stages.0.lr.shape=linear", "stages.1.lr={}"],
            "stages[0].lr.to: 0 is where anneal would begin and stay; write more than 0, or stages[1].lr.peak",
        ),
        (
            ["stages.0.lr.shape=linear"],  # and anneal goes down to 3e-5
            "stages[0].lr.to: 0 is where anneal would begin and stay; write more than 0, or stages[1].lr.peak",
        ),
        (
            ["stages.1.lr={shape: linear}", "stages.2.lr={shape: linear}"],
            "stages[1].lr.to: 0 is where extend-32k would begin and stay; write more than 0, or "
            "stages[2].lr.peak",
        ),
        (
            ["stages.0.lr={peak: 3e-4, shape: stable, to: 1e-5}"],
            "stages[0].lr.to: 1e-05 is never reached with shape: stable; write shape: linear, or leave it out",
        ),
    ],
)  # fmt: skip
def test_a_stage_does_not_train_at_a_rate_that_nobody_wrote(overrides: list[str], said: str, profile: Profile) -> None:
    (found,) = problems("9b", profile, *overrides)
    assert found.endswith(f": {said}")


def test_a_stage_may_end_at_rate_0_where_the_next_has_a_peak_of_its_own(profile: Profile) -> None:
    assert problems("9b", profile, "stages.1.lr={shape: linear}", "stages.3.lr.to=0") == []


def test_attention_by_documents_knows_no_context_parallelism(profile: Profile) -> None:
    with pytest.raises(SpecError, match=r"attention: varlen knows no context parallelism; write flex, or cp: 1"):
        load_job(ROOT / "jobs/9b/pretrain.yaml", ["stages.2.attention=varlen"])


def test_an_odd_border_is_a_warning(profile: Profile) -> None:
    overrides = ["stages.2.lr={peak: 1e-3}", "stages.3.rope_theta=1e4", "stages.3.seq_len=16k"]
    notes = warnings(load_job(ROOT / "jobs/9b/pretrain.yaml", overrides), profile)
    assert any("jumps from 3e-05 to 0.001" in note for note in notes)
    assert any("rope_theta 10000 is below" in note for note in notes)
    assert any("seq_len 16384 is shorter" in note for note in notes)


def test_a_budget_that_is_no_whole_step_is_a_warning(profile: Profile) -> None:
    overrides = ["stages.0.tokens=1000", "stages.0.lr.warmup=0", "stages.2.tokens=5M"]
    assert warnings(load_job(ROOT / "jobs/9b/pretrain.yaml", overrides), profile) == [
        "stage broad: 1000 tokens become 4194304, 1 step of a whole global_batch",
        "stage extend-32k: 5000000 tokens become 8388608, 2 steps of a whole global_batch",
    ]


HASTY = {"max_time": "1d", "preemptible": True, "grace": "20s"}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["lead=20s"], ["lead: 20s is too short: to stop takes 66s (two steps, two saves, the margin); "
                        "write 1m6s or more"]),  # the last of the four stages takes longest
        (["lead=20s", "stages.3.resources.time=1m"], [
            "lead: 20s is too short: to stop takes 66s (two steps, two saves, the margin); write 1m6s or more, "
            "and a longer time limit"]),
        (["stages.3.resources.partition=hasty"], [
            "stages[3].resources.partition: its grace of 20s is too short: to stop takes 66s (two steps, two saves, "
            "the margin); write main or scavenge, or more nodes for faster steps and saves"]),
        (["stages.1.resources.partition=hasty", "stages.2.resources.nodes=32"], [  # taken over by stages 2 and 3
            "stages[1].resources.partition: its grace of 20s is too short: to stop takes 37s (two steps, two saves, "
            "the margin); write main or scavenge, or more nodes for faster steps and saves"]),
        (["resources.partition=hasty", "lead=10s"], [
            "resources.partition: its grace of 20s is too short: to stop takes 66s (two steps, two saves, the margin); "
            "write main or scavenge, or more nodes for faster steps and saves",
            "lead: 10s is too short: to stop takes 66s (two steps, two saves, the margin); write 1m6s or more"]),
        (["stages.2.resources.time=2d"], [
            "stages[2].resources.time: 2d is over the partition's limit; write 1d or less: the run goes on in the next "
            "attempt"]),
        (["stages.2.resources.time=5m"], [
            "stages[2].resources.time: 5m leaves nothing after the lead of 5m; write more"]),
        (["stages.2.resources.nodes=8", "resources.time=2d"], [
            "resources.time: 2d is over the partition's limit; write 1d or less: the run goes on in the next attempt"]),
        (["stages.2.resources.partition=lost"], [
            "stages[2].resources.partition: 'lost' is not in the cluster profile; write one of hasty, main, scavenge"]),
    ],
)  # fmt: skip
def test_a_stop_that_does_not_fit_names_the_key_and_the_longest_of_all_stages(
    overrides: list[str], said: list[str], profile: Profile
) -> None:
    partitions = profile.model_dump(mode="json")["partitions"] | {"hasty": HASTY}
    partitions["main"]["max_time"] = "1d"
    profile = Profile.model_validate(profile.model_dump(mode="json") | {"partitions": partitions})
    # Half the nodes, or twice as many, want another layout.
    overrides = [*overrides, "stages.2.parallelism={cp: 4}", "stages.3.parallelism={cp: 16}"]
    found = check(load_job(ROOT / "jobs/9b/pretrain.yaml", overrides), profile, stores=False)
    assert [f"{problem.key}: {problem.message}" for problem in found] == said


@pytest.mark.parametrize(("cost", "mttf", "step"), [(0.5, 8 * 3600, 3), (30, 8 * 3600, 0.5), (4, 600_000, 30)])
def test_no_other_interval_trains_more(cost: float, mttf: float, step: float) -> None:
    best = best_saving(cost, 1.0, step, mttf)
    tried = [ettr(steps * step, cost, 1.0, mttf) for steps in range(1, 10_000)]
    assert best.interval == best.every * step
    assert best.ettr == ettr(best.interval, cost, 1.0, mttf) == pytest.approx(max(tried), abs=1e-5)
    assert 0 < best.ettr < 1


def test_no_save_is_due_while_the_one_before_is_written() -> None:
    assert best_saving(cost=0.5, lag=100, step=3, mttf=3600).every == 34  # Young's would be 60 s
    assert best_saving(cost=0.5, lag=1, step=500, mttf=3600).every == 1
    late, soon = (best_saving(cost=0.5, lag=lag, step=3, mttf=3600).ettr for lag in (50, 1))
    assert late == pytest.approx(soon - 49 / 3600)  # lost with every failure


def test_nodes_do_not_write_faster_than_the_file_system_takes(profile: Profile) -> None:
    job = load_job(ROOT / "jobs/9b/pretrain.yaml").job
    limited = profile.model_validate(profile.model_dump(mode="json") | {"aggregate_write_bandwidth": "8GB"})
    size = plans(job, profile)[0].checkpoint_bytes
    assert [plans(job, one)[0].save_seconds for one in (profile, limited)] == pytest.approx(
        [1 + size / (16 * 2 * 2**30), 1 + size / (8 * 2**30)]
    )


def test_a_stage_takes_over_what_it_leaves_out() -> None:
    job = load_job(ROOT / "jobs/9b/pretrain.yaml").job
    assert isinstance(job, Pretrain)
    anneal, long = job.stages[1], job.stages[3]
    assert (anneal.seq_len, anneal.rope_theta, anneal.global_batch) == (4096, 1e4, 4 * 2**20)
    assert (long.mixture, long.activation_checkpointing) == ("long", "full")
    assert job.places[1].lr_peak == 3e-4


def test_resources_of_a_stage_are_taken_over_key_by_key() -> None:
    overrides = ["stages.1.resources={nodes: 1, time: 20m}"]
    job = load_job(ROOT / "jobs/tiny/pretrain-stages.yaml", overrides).job
    sizes = [(resources.nodes, resources.gpus_per_node, resources.time) for _, resources in job.jobs]
    assert sizes == [(2, 2, 600), (1, 2, 1200), (1, 2, 1200), (1, 2, 1200)]
