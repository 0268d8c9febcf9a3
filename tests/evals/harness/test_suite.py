"""Tasks of lm-evaluation-harness on the export of a trained checkpoint, beside lm-eval's own run and our own model."""

from __future__ import annotations

import os
import signal
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.evals.harness.conftest import SEQ_LEN, SHOTS, harness_of
from tests.model.parity import titan, titan_logits
from tests.train.forked import STEPS, Training
from tests.train.test_export import saved_weights
from xgen.evals.harness import HarnessSuite
from xgen.evals.harness.process import CHILD
from xgen.evals.protocol import Item, Record, Subject
from xgen.spec import Pretrain, load_resolved


@pytest.fixture(scope="module")
def model(child: ModuleType, subject: Subject) -> Any:
    return child.open_model(wanted(subject.export("float32")))


def wanted(folder: Path, **keys: Any) -> dict[str, Any]:
    return {"kind": "hf", "folder": str(folder), "dtype": "float32", "batch": 4, "arguments": {}, "chat": False} | keys


@pytest.fixture(scope="module")
def whole(child: ModuleType, model: Any, tasks: Path) -> dict[str, Any]:
    """lm-eval's own run of all of it in one go."""
    return by_itself(model, tasks)


def by_itself(model: Any, tasks: Path, **keys: Any) -> dict[str, Any]:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    found: dict[str, Any] = {"results": {}, "samples": {}, "groups": {}}
    for task, shots in SHOTS.items():
        manager = TaskManager(include_path=str(tasks), include_defaults=False)
        of = simple_evaluate(model, tasks=[task], num_fewshot=shots, task_manager=manager, bootstrap_iters=0, **keys)
        for key in found:
            found[key] |= of.get(key, {})
    return found


def suite_of(tasks: Path, cache: Path, **keys: Any) -> HarnessSuite:
    return HarnessSuite(harness_of(tasks, **keys), cache)


@pytest.fixture(scope="module")
def shards(
    child: ModuleType, model: Any, subject: Subject, tasks: Path, cache: Path
) -> dict[int, list[dict[str, Any]]]:
    """Samples by lm-eval's code in three shards, which ask for every third document."""
    suite = suite_of(tasks, cache)
    items = suite.items()
    return {shard: in_process(child, model, suite, subject, items[shard::3]) for shard in range(3)}


def in_process(
    child: ModuleType, model: Any, suite: HarnessSuite, subject: Subject, items: Sequence[Item]
) -> list[dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(child, "open_model", lambda _: model)
        lines = list(child.score(suite._order(subject.export("float32"), items)))
    return [line["sample"] for line in lines if "sample" in line]


@pytest.fixture(scope="module")
def records(subject: Subject, tasks: Path, cache: Path) -> list[Record]:
    """Of an evaluation whose child was killed on the way, and one that went on after it."""
    suite = suite_of(tasks, cache)
    items = suite.items()
    first, done = suite.score(subject, items, lambda: False), []
    with pytest.raises(RuntimeError, match="was killed by signal 9"):
        for record in first:
            done.append(record)
            if len(done) == 9:
                os.kill(child_of(os.getpid()), signal.SIGKILL)
    assert 9 <= len(done) < 60
    left = [item for item in items if item not in {record.item for record in done}]
    rest = list(suite.score(subject, left, lambda: False))
    assert [record.item for record in rest] == left
    return done + rest


def child_of(parent: int) -> int:
    found = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    (child,) = [int(one) for one in found if CHILD.name in Path(f"/proc/{one}/cmdline").read_text()]
    return child


def test_the_items_are_the_documents_of_every_task_and_a_group_is_one(tasks: Path, cache: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "own", symlinks=True)
    site = next((tmp_path / "own").glob("lib/*/site-packages"))
    (site / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    there = suite_of(tasks, tmp_path, python=str(tmp_path / "own/bin/python")).items()
    items = suite_of(tasks, cache).items()
    assert there == items
    counts = {task: sum(item.task == task for item in items) for task in SHOTS}
    assert counts == {"endings": 24 + 7, "last_word": 24, "spoken": 24}
    few = suite_of(tasks, cache, samples=3).items()
    assert [item.index for item in few if item.task == "endings"] == [0, 1, 2, 24, 25, 26]


def test_three_shards_score_what_one_run_of_lm_eval_does(
    shards: dict[int, list[dict[str, Any]]], whole: dict[str, Any]
) -> None:
    samples = {(one["part"], one["doc"]): one for shard in shards.values() for one in shard}
    metric = {"endings_a": "acc", "endings_b": "acc", "last_word": "acc", "spoken": "exact_match"}
    seen = 0
    for task, theirs in whole["samples"].items():
        for sample in theirs:
            ours = samples[task, sample["doc_id"]]
            if sample["filter"] in ("none", "first"):
                seen += 1
                assert ours["score"] == sample[metric[task]]
            if sample["filter"] == "whole":
                assert ours["values"]["exact_match,whole"] == sample["exact_match"]
                assert ours["answer"] == sample["resps"][0][0]
            elif task != "spoken":
                assert numbers(ours["answer"]) == pytest.approx([one[0][0] for one in sample["resps"]], abs=2e-5)
    assert seen == len(samples) == 24 + 7 + 24 + 24


def test_a_killed_and_resumed_evaluation_gives_the_scores_of_one_run(
    records: list[Record], shards: dict[int, list[dict[str, Any]]], whole: dict[str, Any], cache: Path
) -> None:
    assert len({record.item for record in records}) == len(records) == 24 + 7 + 24 + 24
    by_task = {task: [record.score for record in records if record.task == task] for task in SHOTS}
    results = whole["results"]
    assert mean(by_task["endings"]) == pytest.approx(whole["groups"]["endings"]["acc,none"])
    assert mean(by_task["last_word"]) == pytest.approx(results["last_word"]["acc,none"])
    assert mean(by_task["spoken"]) == pytest.approx(results["spoken"]["exact_match,first"])
    assert 0 < mean(by_task["endings"]) < 1
    digests = {one["digest"] for shard in shards.values() for one in shard}
    assert {record.digest for record in records} == digests
    assert all(record.tokens > 4 and record.seconds > 0 for record in records)


def numbers(answer: str) -> list[float]:
    return [float(one) for one in answer.split()]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_log_likelihoods_are_those_of_our_own_models(
    subject: Subject, training: Training, records: list[Record], whole: dict[str, Any]
) -> None:
    values = {(record.task, record.index): numbers(record.answer) for record in records if record.task != "spoken"}
    asked = [
        (begin, ids, value)
        for task, samples in whole["samples"].items()
        if task != "spoken"
        for sample in samples
        for argument, value in zip(sample["arguments"], values[place(sample, task)], strict=True)
        for begin, ids in [encoded(subject, argument[0], argument[1])]
    ]
    assert len(asked) == 4 * (24 + 7) + 24
    engine = subject.model().losses([ids for _, ids, _ in asked])
    job = load_resolved(training.run.spec_file)
    assert isinstance(job, Pretrain)
    torchtitan = titan(job.model, SEQ_LEN)
    torchtitan.load_state_dict(saved_weights(training.run, STEPS), strict=True)
    for (begin, ids, value), losses in zip(asked, engine, strict=True):
        assert value == pytest.approx(-float(losses[begin - 1 :].sum()), abs=1e-4)
        logits = titan_logits(torchtitan, torch.tensor([ids]))[0].log_softmax(-1)
        assert value == pytest.approx(sum(float(logits[at - 1, ids[at]]) for at in range(begin, len(ids))), abs=1e-4)


def encoded(subject: Subject, context: str, continuation: str) -> tuple[int, list[int]]:
    """Tokens of the context, and ids of both."""
    ids = subject.tokenizer.encode(context + continuation).ids
    return len(subject.tokenizer.encode(context).ids), ids


def place(sample: dict[str, Any], task: str) -> tuple[str, int]:
    """Name and index of its record: the documents of endings_b follow those of endings_a."""
    return ("endings" if task.startswith("endings") else task), sample["doc_id"] + (24 if task == "endings_b" else 0)


def test_the_chat_template_is_applied_as_lm_eval_does(
    child: ModuleType, subject: Subject, talking: Path, tasks: Path, cache: Path
) -> None:
    with pytest.raises(child.Refused, match=r"has no chat template; write chat: false"):
        child.open_model(wanted(subject.export("float32"), chat=True))
    model = child.open_model(wanted(talking, chat=True))
    suite = suite_of(tasks, cache, chat=True)
    samples = in_process(child, model, suite, subject, suite.items()[::2])
    theirs = by_itself(model, tasks, apply_chat_template=True)["samples"]
    prompts = {(task, one["doc_id"]): one for task, of in theirs.items() for one in of}
    assert all("<assistant>" in one["arguments"][0][0] for one in prompts.values())
    for ours in samples:
        sample = prompts[ours["part"], ours["doc"]]
        if ours["part"] != "spoken":
            assert numbers(ours["answer"]) == pytest.approx([one[0][0] for one in sample["resps"]], abs=2e-5)
    assert len(samples) == 40
