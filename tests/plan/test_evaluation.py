"""What an evaluation takes, against arithmetic by hand, and what of it is refused or told before it is submitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from xgen.plan import check, plans, warnings
from xgen.plan.evaluation import Evaluation, answer_flops, prompt_flops, saved_steps
from xgen.spec import LoadedJob, ModelSpec, Pretrain, Profile, dump, load_job, with_runtime

TINY = ModelSpec.model_validate("tiny")
RECALL = {"lengths": ["4k", "8k"], "samples": 10}


@pytest.fixture
def here(tmp_path: Path, profile: Profile) -> Profile:
    """A cluster with the runs `small-aaaaaa` and `xgen-9b-aaaaaa`, which have checkpoints by their specs alone."""
    for name, spec, changes in (
        ("small-aaaaaa", "tiny/pretrain", ("checkpoint={every: 20}",)),
        ("xgen-9b-aaaaaa", "9b/pretrain", ()),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "spec.yaml").write_text(dump(load_job(ROOT / f"jobs/{spec}.yaml", changes).job))
    return profile.model_copy(update={"run_root": str(tmp_path)})


def loaded(here: Profile, **keys: Any) -> LoadedJob:
    file = Path(here.run_root) / "evaluate.yaml"
    spec = {"kind": "evaluate", "name": "scores", "checkpoints": "small-aaaaaa", "recall": RECALL,
            "resources": {"time": "1h"}, "container": {"image": "xgen-train"}}  # fmt: skip
    file.write_text(yaml.safe_dump(spec | keys))
    return load_job(file)


def problems(here: Profile, *, stores: bool = False, **keys: Any) -> list[str]:
    return [f"{one.key}: {one.message}" for one in check(loaded(here, **keys), here, stores=stores)]


def numbers(here: Profile, **keys: Any) -> Evaluation:
    score, report = plans(loaded(here, **keys).job, here)
    assert score.evaluation and report.evaluation is None
    return score.evaluation


def test_the_work_of_a_prompt_is_that_of_its_matrices_one_by_one() -> None:
    dim, kv, ffn, vocab, layers, tokens = 128, 64, 352, 4096, 4, 1000
    norms = layers * 2 * dim + dim  # counted as if they were multiplied
    inner = layers * (2 * dim * dim + 2 * dim * kv + 3 * dim * ffn) + norms
    seen = sum(2 * 2 * dim * layers * (position + 0.5) for position in range(tokens))  # scores and sums, half of them
    assert prompt_flops(TINY, tokens) == pytest.approx(2 * inner * tokens + seen + 2 * dim * vocab)
    assert prompt_flops(TINY, tokens, logits=True) == pytest.approx(2 * (inner + dim * vocab) * tokens + seen)
    # A token after the other sees all before it: with its prompt the sum is that of one pass over both.
    both = prompt_flops(TINY, 1000, logits=True) + answer_flops(TINY, 1000, 50)
    assert both == pytest.approx(prompt_flops(TINY, 1050, logits=True))
    assert prompt_flops(TINY, 4096, logits=True) == pytest.approx(4096 * TINY.flops_per_token(4096) / 3)


def test_samples_and_tokens_are_counted_by_suite_and_length(here: Profile) -> None:
    one = numbers(
        here,
        ruler={"tasks": ["vt", "cwe", "fwe"], "lengths": ["4k", "8k"], "samples": 100},
        needles={"lengths": ["4k"], "depths": 11, "samples": 2},
        perplexity={"books": {"path": "/books", "length": "64k", "documents": 3}},
    )
    assert [(part.suite, part.length, part.samples) for part in one.parts] == [
        ("ruler", 4096, 300),
        ("ruler", 8192, 300),
        ("needles", 4096, 22),
        ("recall", 4096, 10),
        ("recall", 8192, 10),
        ("perplexity books", 65536, 3),
    ]
    assert one.samples == 645
    assert one.tokens == 332 * 4096 + 310 * 8192 + 3 * 65536  # a sample with its answer is as long as it says
    assert sum(part.answer_tokens for part in one.parts) == 642 * 128
    assert one.flops == pytest.approx(
        332 * (prompt_flops(TINY, 3968) + answer_flops(TINY, 3968, 128))
        + 310 * (prompt_flops(TINY, 8064) + answer_flops(TINY, 8064, 128))
        + 3 * prompt_flops(TINY, 65536, logits=True)
    )


def test_time_is_shared_by_the_shards_that_run_at_once_and_gpu_hours_are_not(here: Profile) -> None:
    one, many, few = (
        numbers(here, array=array) for array in ({"shards": 1}, {"shards": 8}, {"shards": 8, "at_once": 2})
    )
    read, written = (sum(getattr(part, f"{what}_flops") for part in one.parts) for what in ("prompt", "answer"))
    assert one.seconds == pytest.approx(read / (989e12 * 0.38) + written / (989e12 * 0.1))
    assert one.gpu_hours == pytest.approx(one.seconds / 3600)
    assert (many.seconds, few.seconds) == (one.seconds / 8, one.seconds / 2)
    assert many.gpu_hours == few.gpu_hours == one.gpu_hours


def test_checkpoints_are_those_that_the_training_saves(here: Profile) -> None:
    run = load_job(ROOT / "jobs/tiny/pretrain.yaml", ["checkpoint={every: 20}"]).job
    assert isinstance(run, Pretrain)
    last = run.places[-1].last_step
    assert saved_steps(run) == sorted({*range(20, last, 20), last})
    every = {"run": "small-aaaaaa", "every": 40, "first": 50, "follow": True}
    assert numbers(here, checkpoints=every).num_checkpoints == sum(
        step >= 50 and step % 40 == 0 for step in saved_steps(run)
    )
    assert numbers(here, checkpoints={"run": "small-aaaaaa", "steps": [20, 40, 60]}).num_checkpoints == 3
    assert numbers(here).num_checkpoints == 1
    whole, _ = plans(loaded(here, checkpoints={"run": "small-aaaaaa", "steps": [20, 40, 60]}).job, here)
    assert whole.evaluation and whole.gpu_hours == pytest.approx(3 * whole.evaluation.gpu_hours)


def test_without_the_run_samples_are_counted_and_nothing_is_said_of_time(here: Profile) -> None:
    for checkpoints in ("gone-aaaaaa", {"hf": "/models/llama"}):
        one = numbers(here, checkpoints=checkpoints)
        assert (one.samples, one.flops, one.seconds, one.holding) == (20, 0, 0, None)
        assert problems(here, checkpoints=checkpoints) == []  # a plan needs none


def test_what_is_held_is_weights_keys_and_values_of_the_longest(here: Profile) -> None:
    held = numbers(here, checkpoints="xgen-9b-aaaaaa", recall={"lengths": ["4k", "128k"]}).holding
    assert held
    assert held.weights == 2 * ModelSpec.model_validate("xgen-9b").num_parameters
    assert held.cache == 38 * 2 * 8 * 128 * 2 * 131072  # layers, keys and values, heads, their size, bytes, tokens
    assert held.working < 0.1 * held.total
    more = numbers(here, checkpoints="xgen-9b-aaaaaa", recall={"lengths": ["128k"]}, at_once=3).holding
    assert more and more.cache == 3 * held.cache


def test_what_no_gpu_holds_is_refused_with_the_length_that_one_does(here: Profile) -> None:
    said = problems(here, checkpoints="xgen-9b-aaaaaa", recall={"lengths": ["4k", "1M"]})
    assert said == [
        "recall.lengths: a sample of 1M needs about 171GB on a GPU, and 72GB of 80GB are there; "
        "write 256k or less, or take larger GPUs"
    ]
    assert problems(here, checkpoints="xgen-9b-aaaaaa", recall={"lengths": ["256k"]}) == []
    (said_of_many,) = problems(here, checkpoints="xgen-9b-aaaaaa", recall={"lengths": ["64k"]}, at_once=9)
    assert said_of_many.endswith("write 5, or 0 for what fits")
    assert problems(here, checkpoints="xgen-9b-aaaaaa", recall={"lengths": ["64k"]}, at_once=5) == []
    on_processors = {"time": "1h", "gpus_per_node": 0}
    assert problems(here, checkpoints="xgen-9b-aaaaaa", recall={"lengths": ["1M"]}, resources=on_processors) == []


def test_more_shards_than_samples_are_refused_unless_the_harness_has_some(here: Profile) -> None:
    assert problems(here, array={"shards": 21}) == ["array.shards: 21 have no more than 20 samples; write 20"]
    assert problems(here, array={"shards": 21}, harness={"tasks": {"arc_easy": None}}) == []


def test_what_it_would_not_find_is_named_at_submission(here: Profile, tmp_path: Path) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "one.jsonl").write_text('{"text": "One."}')
    said = problems(
        here,
        stores=True,
        checkpoints="gone-aaaaaa",
        template="chat.jinja",
        needles={"lengths": ["4k"], "haystack": str(tmp_path / "essays")},
        perplexity={"books": {"path": str(folder), "length": "4k"}},
        harness={"tasks": {"arc_easy": None}, "datasets": str(tmp_path / "sets")},
        cache=str(tmp_path / "nowhere/counts"),
    )
    assert [one.partition(": ")[0] for one in said] == [
        "template", "needles.haystack", "harness.datasets", "cache", "checkpoints.run",
    ]  # fmt: skip
    assert said[2].endswith("is not there; write `xgen evals fetch SPEC` first")
    assert said[4].endswith("gone-aaaaaa is no run directory; write the name of a run that trains, or its path")


def test_an_interpreter_that_is_none_is_refused_where_no_container_has_it(here: Profile, tmp_path: Path) -> None:
    harness = {"tasks": {"arc_easy": None}, "python": str(tmp_path / "python")}
    assert problems(here, stores=True, harness=harness) == []  # in its image it may be there
    assert problems(with_runtime(here, "none"), stores=True, harness=harness, container={}) == [
        f"harness.python: {tmp_path / 'python'} is no program; write the interpreter of an environment"
    ]


def test_a_run_that_trains_nothing_and_a_step_after_its_end_are_refused(here: Profile, tmp_path: Path) -> None:
    (tmp_path / "words-aaaaaa").mkdir()
    (tmp_path / "words-aaaaaa/spec.yaml").write_text(dump(load_job(ROOT / "jobs/tiny/hello.yaml").job))
    (said,) = problems(here, stores=True, checkpoints="words-aaaaaa")
    assert said.startswith("checkpoints.run: ") and "trained no weights; write the name of a run that trains" in said
    (said,) = problems(here, checkpoints={"run": "small-aaaaaa", "steps": [20, 999_999]})
    assert said.startswith("checkpoints.steps: 999999 is after the training's last step; write ")
    (said,) = problems(here, checkpoints={"run": "small-aaaaaa", "every": 1, "first": 999_999})
    assert said.startswith("checkpoints.first: 999999 is after the training's last step")


def test_resources_of_the_report_are_named_where_they_are_written(here: Profile) -> None:
    (said,) = problems(here, single={"partition": "mian", "time": "1h"})
    assert said.startswith("single.partition: 'mian' is not in the cluster profile; write main")
    (said,) = problems(here, resources={"partition": "mian", "time": "1h"})
    assert said.startswith("resources.partition: 'mian' is not in")


def test_a_person_is_told_of_what_the_scores_would_not_show(here: Profile) -> None:
    assert warnings(loaded(here, recall={"lengths": [64]}), here) == []
    (said,) = warnings(loaded(here), here)
    assert (
        said == "samples of 8k are longer than 256, what small-aaaaaa is trained at: a score beyond says how it breaks"
    )
    (said,) = warnings(loaded(here, checkpoints="xgen-9b-aaaaaa", resources={"time": "1h", "gpus_per_node": 0}), here)
    assert said.startswith("no GPU is asked for, and 9,")


def test_a_person_is_told_of_checkpoints_that_would_not_be_there(here: Profile) -> None:
    def told(**checkpoints: Any) -> list[str]:
        short = {"lengths": [64]}
        return warnings(loaded(here, recall=short, checkpoints={"run": "small-aaaaaa", **checkpoints}), here)

    (said,) = told(every=20, follow=True)
    assert said == (
        "small-aaaaaa keeps its newest 2 checkpoints: one that is not scored by then is left out; of the next training "
        "write checkpoint.keep_every: 20"
    )
    assert told(every=20) == []  # what is there is there
    run = load_job(ROOT / "jobs/tiny/pretrain.yaml").job
    assert isinstance(run, Pretrain)
    assert told(steps=run.places[-1].last_step, follow=True) == []  # the last of a stage is kept
    (said,) = told(steps=[20, 50])
    assert said == "checkpoints.steps: small-aaaaaa saves every 20 steps, and not at 50"
    (said,) = told(every=30)
    assert said == "checkpoints.every: small-aaaaaa saves every 20 steps: of every 30 those of every 60 are there"
    assert told(every=40) == told(every=10) == []


def test_the_work_of_a_published_sweep_is_what_it_was_reckoned_to_be(here: Profile) -> None:
    """13 tasks, 7 lengths, 500 samples with the 9B: the longest length takes two thirds of it."""
    lengths = [4096 << doubled for doubled in range(7)]
    sets = dict.fromkeys(("haystack", "qa_1", "qa_2"), "/words")
    one = numbers(here, checkpoints="xgen-9b-aaaaaa", ruler={"lengths": lengths, **sets}, recall=None)
    assert one.samples == 13 * 7 * 500
    by_length = {part.length: part.seconds(here) / 3600 for part in one.parts}
    assert by_length[262144] / one.gpu_hours == pytest.approx(0.69, abs=0.01)
    assert by_length[4096] < 0.005 * one.gpu_hours
