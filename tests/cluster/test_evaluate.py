"""Evaluation on the real SLURM, in the container: shards are preempted, given up, and become more; no sample is scored
twice."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.conftest import Cluster, has_event, outcome, wait_for_event, wait_until
from tests.cluster.test_training import SMALL, SPEC
from xgen.runs import RunDir, read_events

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
SHARDS = 3
WORDS = ["one", "two", "three", "of", "the", "house", "and", "tree", "was", "here", "before", "they", "saw", "it"]


def train(cluster: Cluster, *settings: str) -> RunDir:
    """24 steps of one rank, a checkpoint every 5 of them."""
    alone = ("resources.partition=gpu", "resources.nodes=1", "stages.0.parallelism.fsdp=1")
    return cluster.submit(SPEC, *SMALL, *alone, "checkpoint.keep_every=5", *settings)


def evaluate(cluster: Cluster, folder: Path, checkpoints: dict[str, Any], documents: int) -> RunDir:
    """An answer for each shard, then some documents to read."""
    number = random.Random(1)
    texts = [" ".join(number.choices(WORDS, k=1200)) for _ in range(documents)]
    (folder / "held-out.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    spec = {
        "kind": "evaluate", "name": "scores", "checkpoints": checkpoints, "container": {"image": "xgen-cpu"},
        "recall": {"lengths": ["512"], "samples": SHARDS},
        "perplexity": {"words": {"path": f"{folder}/held-out.jsonl", "length": "1k", "documents": documents}},
        "resources": {"partition": "preempt", "nodes": 1, "gpus_per_node": 1, "time": "15m", "memory": "2GB"},
        "lead": "20s", "array": {"shards": SHARDS},
    }  # fmt: skip
    file = folder / "evaluate.yaml"
    file.write_text(yaml.safe_dump(spec))
    return cluster.submit(file)


def shards(run: RunDir, count: int = SHARDS) -> list[RunDir]:
    return [run.shard("score", number) for number in range(count)]


def lines(run: RunDir) -> dict[str, list[str]]:
    """Of each file of records, by its name; the last may be a part."""
    files = sorted(run.evaluation_dir.glob("step-*/*.jsonl"))
    return {str(path.relative_to(run.evaluation_dir)): path.read_text().splitlines(keepends=True) for path in files}


def num_lines(run: RunDir) -> int:
    return sum(map(len, lines(run).values()))


def has_records(run: RunDir, number: int) -> bool:
    return any(name.endswith(f"/{number}.jsonl") and some for name, some in lines(run).items())


def wait_for_records(run: RunDir, number: int) -> None:
    """Until there are so many, some of each shard."""
    wait_until(
        lambda: num_lines(run) >= number and all(has_records(run, shard) for shard in range(SHARDS)),
        400, f"{number} samples of {run.name}: {[said(shard) for shard in shards(run)]}",
    )  # fmt: skip


def said(shard: RunDir) -> list[str]:
    return [path.read_text()[-500:] for path in sorted(shard.attempts_dir.glob("*/*.log"))]


def assert_each_once(run: RunDir, steps: list[int], documents: int) -> None:
    wanted = [("recall", index) for index in range(SHARDS)] + [("perplexity", index) for index in range(documents)]
    found: dict[int, list[tuple[str, int]]] = {step: [] for step in steps}
    for name, some in lines(run).items():
        for line in map(json.loads, some):
            found[int(name.split("/")[0].removeprefix("step-"))].append((line["suite"], line["index"]))
    assert {step: sorted(some) for step, some in found.items()} == dict.fromkeys(steps, sorted(wanted))


def test_a_training_is_followed_and_shards_that_are_preempted_repeat_no_sample(
    container_cluster: Cluster, tmp_path: Path
) -> None:
    trained = train(container_cluster)
    wait_for_event(trained, "checkpoint_durable", timeout=300)
    choice = {"run": trained.name, "every": 5, "last": 15, "follow": True}
    run = evaluate(container_cluster, tmp_path, choice, documents=60)
    wait_for_records(run, 30)

    container_cluster.preempt()
    for shard in shards(run):
        wait_for_event(shard, "requeued", timeout=120)
    before = lines(run)
    assert [outcome(shard, 1).status for shard in shards(run)] == ["stopped"] * SHARDS
    assert sum(map(len, before.values())) < 3 * (SHARDS + 60)
    assert all(outcome(shard, 1).durable_step > 0 for shard in shards(run))

    wait_for_event(run, "finished", timeout=600)
    assert [max(event.attempt for event in read_events(shard)) for shard in shards(run)] == [2] * SHARDS
    after = lines(run)
    assert all(after[name][: len(some)] == some for name, some in before.items())
    assert_each_once(run, [5, 10, 15], documents=60)
    told = [event.checkpoint or "" for event in read_events(run) if event.event == "evaluated"]
    assert sorted(told) == sorted(f"{trained.name}@{step}" for step in (5, 10, 15))
    assert (run.evaluation_dir / "report/results.md").is_file()
    assert [event.stage for event in read_events(run) if event.event == "stage_finished"] == ["score"]
    assert container_cluster.status(run)["state"] == "finished"
    assert "done: 5, 10, 15" in container_cluster.xgen("status", run.name).stdout


def test_what_was_given_up_or_cancelled_goes_on_with_other_shards(container_cluster: Cluster, tmp_path: Path) -> None:
    trained = train(container_cluster)
    wait_for_event(trained, "finished", timeout=400)
    run = evaluate(container_cluster, tmp_path, {"run": trained.name, "steps": [10, 24]}, documents=90)
    wait_for_records(run, SHARDS)
    job = run.job_file(0).read_text().strip()
    subprocess.run(["scancel", f"{job}_1"], check=True, timeout=60)
    wait_for_event(run.shard("score", 1), "cancelled", timeout=120)
    assert "1 given up" in container_cluster.xgen("status", run.name).stdout

    done = container_cluster.xgen("cancel", run.name)
    assert done.returncode == 0, done.stderr
    wait_until(lambda: container_cluster.status(run)["state"] == "cancelled", 120, "the end of the run")
    before = lines(run)
    assert sum(map(len, before.values())) < 2 * (SHARDS + 90)

    done = container_cluster.xgen("resume", run.name, "--set", "array.shards=2")
    assert done.returncode == 0, done.stderr
    assert "with 2 of 2 shards of stage score" in done.stdout
    wait_for_event(run, "finished", timeout=600)
    after = lines(run)
    assert all(after[name][: len(some)] == some for name, some in before.items())
    assert_each_once(run, [10, 24], documents=90)
    assert has_event(run, "evaluated") is not None
