"""The real specs on hundreds of ranks, one of which is built here: what it takes is what the plan says."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.conftest import ROOT
from xgen.plan.memory import memory, memory_of
from xgen.plan.tuned import beside
from xgen.spec import Place, Pretrain, SpecError, Tuned, load_job
from xgen.train.fake import FakeRank, fake_rank, with_ranks

# The last stage has 16 sequences a step: more ranks want more of them for each.
LONG = {
    64: ["stages.3.parallelism={fsdp: 4, cp: 16}", "stages.3.resources={nodes: 8}"],
    128: [],
    512: ["stages.3.parallelism={fsdp: 16, cp: 32}", "stages.3.resources={nodes: 64}"],
}
LAYOUTS = {
    "fsdp": ("4b", 0, []),
    "fsdp, nothing computed again": ("9b", 0, ["stages.0.activation_checkpointing=none"]),
    "fsdp x tp": ("9b", 0, ["stages.0.parallelism={fsdp: 16, tp: 8}"]),
    "fsdp x cp": ("9b", 2, []),
    "fsdp x cp, 256k": ("9b", 3, []),
    "fsdp x cp x tp": ("9b", 2, ["stages.2.parallelism={fsdp: 4, tp: 8, cp: 4}"]),
    "fsdp x pp, the first of them": ("9b", 0, ["stages.0.parallelism={fsdp: 32, pp: 4}"]),
    "fsdp x pp, the last of them": ("9b", 0, ["stages.0.parallelism={fsdp: 32, pp: 4}"]),
    "fsdp x tp x pp, the first of them": ("4b", 0, ["stages.0.parallelism={fsdp: 8, tp: 4, pp: 4}"]),
}


def job_of(size: str, overrides: list[str], layers: int | None = None) -> Pretrain:
    job = load_job(ROOT / f"jobs/{size}/pretrain.yaml", overrides).job
    assert isinstance(job, Pretrain)
    return job.model_copy(update={"model": job.model.model_copy(update={"num_layers": layers})}) if layers else job


@pytest.fixture(scope="module")
def builders() -> Iterator[ProcessPoolExecutor]:
    """Fake communication takes over a process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


def assert_as_planned(found: FakeRank, job: Pretrain, place: Place, pp_rank: int = 0) -> None:
    planned = memory_of(job.model, place, pp_rank)
    assert found.num_ranks == place.resources.world_size
    assert found.parameters == planned.parameters
    assert found.optimizer == 2 * planned.parameters
    assert found.buffers == planned.rope_tables


@pytest.mark.parametrize("num_ranks", [64, 128, 512])
@pytest.mark.parametrize("index", [0, 3], ids=["first", "last"])
@pytest.mark.parametrize("size", ["4b", "9b"])
def test_the_real_specs_are_built_on_hundreds_of_ranks(
    builders: ProcessPoolExecutor, size: str, index: int, num_ranks: int
) -> None:
    """Bytes of parameters and moments are the plan's to the byte: the first rank has the largest shards."""
    job = with_ranks(job_of(size, []), 0, num_ranks) if index == 0 else job_of(size, LONG[num_ranks])
    found = builders.submit(fake_rank, job, index).result(timeout=120)
    assert_as_planned(found, job, job.places[index])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("layers", [6, pytest.param(None, marks=pytest.mark.slow)])
def test_the_peak_is_the_planned_one(builders: ProcessPoolExecutor, layout: str, layers: int | None) -> None:
    """torch's tracker over a step on fake tensors; with few layers the rest weighs more."""
    size, index, overrides = LAYOUTS[layout]
    job = job_of(size, overrides, layers)
    place = job.places[index]
    pp_rank = place.stage.parallelism.pp - 1 if "last" in layout else 0
    rank = place.resources.world_size - 1 if "last" in layout else 0
    found = builders.submit(fake_rank, job, index, rank, step=True).result(timeout=240)
    planned = memory_of(job.model, place, pp_rank)
    assert found.peak > 2**30
    assert planned.total == pytest.approx(found.peak, rel=0.1)


@pytest.mark.parametrize("kernels", [["attention=varlen"], ["attention=flash", "precision=float8"]])
def test_what_only_a_gpu_computes_is_built_too(builders: ProcessPoolExecutor, kernels: list[str]) -> None:
    overrides = [*(f"stages.0.{kernel}" for kernel in kernels), "stages.2.attention=flex"]  # stages inherit
    job = job_of("4b", overrides, layers=2)
    found = builders.submit(fake_rank, job, 0, step=True).result(timeout=120)
    flex = builders.submit(fake_rank, job_of("4b", [], layers=2), 0, step=True).result(timeout=120)
    assert (found.parameters, found.peak) == (flex.parameters, flex.peak)


def test_ranks_that_do_not_divide_are_refused() -> None:
    with pytest.raises(SpecError, match="100 ranks are no multiple of 8"):
        with_ranks(job_of("4b", []), 0, 100)
    with pytest.raises(SpecError, match="global_batch"):
        with_ranks(job_of("9b", []), 3, 512)


ADAPTERS = "lora={rank: 64, alpha: 128}"
TUNED = {
    "sft": ("sft", []),
    "sft of adapters": ("sft", [ADAPTERS]),
    "sft of adapters x tp": ("sft", [ADAPTERS, "train.parallelism={tp: 8, cp: 1}"]),
    "sft of adapters, every second product kept": ("sft", [ADAPTERS, "train.activation_checkpointing=selective"]),
    "preference": ("dpo", []),
    "rl": ("rl", []),
}


@pytest.mark.parametrize("case", TUNED)
@pytest.mark.parametrize("layers", [6, pytest.param(None, marks=pytest.mark.slow)])
def test_the_post_trainings_are_built_as_planned(builders: ProcessPoolExecutor, case: str, layers: int | None) -> None:
    """Of the engine that generates, and of a frozen reference, nothing is built."""
    kind, overrides = TUNED[case]
    job = load_job(ROOT / f"jobs/9b/{kind}.yaml", overrides).job
    assert isinstance(job, Tuned)
    if layers:
        job = job.model_copy(update={"model": job.model.model_copy(update={"num_layers": layers})})
    found = builders.submit(fake_rank, job, 0, step=True).result(timeout=300)
    planned = memory(job.model, job.places[0], beside(job))
    assert found.parameters == planned.parameters + planned.adapters
    assert found.optimizer == 2 * (planned.adapters or planned.parameters)
    assert planned.total == pytest.approx(found.peak, rel=0.13 if job.adapters else 0.1)
