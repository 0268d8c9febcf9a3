"""The harness in the shards of a job, with all that a shard is made of."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.evals.harness.conftest import harness_of
from tests.train.forked import STEPS, Training
from xgen.evals.records import step_folder
from xgen.evals.summary import Summary
from xgen.evals.worker import run_shard
from xgen.runs import RunDir, StopFlag, TaskContext
from xgen.spec import Evaluate, load_resolved


@pytest.mark.slow
def test_two_shards_score_a_checkpoint_and_its_scores_are_told(training: Training, tasks: Path) -> None:
    run = RunDir(training.run.path.with_name("knowledge-bcd345"))
    run.create()
    keys = {
        "kind": "evaluate", "name": "knowledge", "checkpoints": training.run.name, "array": {"shards": 2},
        "harness": harness_of(tasks, samples=5).model_dump(),
        "resources": {"nodes": 1, "gpus_per_node": 0, "time": "1h"},
    }  # fmt: skip
    run.spec_file.write_text(yaml.safe_dump(keys))
    job = load_resolved(run.spec_file)
    assert isinstance(job, Evaluate)
    for shard in range(2):
        own = run.shard("score", shard)
        own.attempt_dir(1).mkdir(parents=True)
        context = TaskContext(own, 1, "1", 0, 0, 1, StopFlag(), None, shard=shard, num_shards=2)
        assert run_shard(context, job, lambda _: None).status == "finished"
    summary = Summary.model_validate_json((step_folder(run, STEPS) / "scores.json").read_bytes())
    assert {score.key: score.count for score in summary.scores} == {
        "harness/endings/0": 10, "harness/last_word/0": 5, "harness/spoken/0": 5,
    }  # fmt: skip
