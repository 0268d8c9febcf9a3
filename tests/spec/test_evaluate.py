"""What a wrong value of an evaluation's spec is answered with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from xgen.spec import Evaluate, SpecError, load_job

RECALL = {"lengths": ["4k"]}
HARNESS = {"tasks": {"arc_easy": None}}
SAID: dict[str, tuple[dict[str, Any], str]] = {
    "no suite": ({"recall": None}, "nothing to score; write e.g. ruler: "),
    "a number as checkpoints": ({"checkpoints": 7}, "checkpoints: 7 names no checkpoint; write the name of a run, "),
    "two sources": ({"checkpoints": {"run": "a", "hf": "/b"}}, "checkpoints: both `run` and `hf` given; write "),
    "steps of a folder": ({"checkpoints": {"hf": "/b", "steps": 7}}, "hf: a folder has one state; leave out steps"),
    "two choices": ({"checkpoints": {"run": "a", "steps": 7, "every": 7}}, "steps and every are two choices; leave"),
    "a range of nothing": ({"checkpoints": {"run": "a", "first": 7}}, "first and last are of `every`, which is miss"),
    "an empty range": (
        {"checkpoints": {"run": "a", "every": 1, "first": 7, "last": 6}},
        "last: 6 is before first: 7; write 7 or more",
    ),
    "to follow the newest": ({"checkpoints": {"run": "a", "follow": True}}, "follow: a training that goes on has no n"),
    "no length": ({"recall": {"lengths": []}}, "recall.lengths: is empty; write e.g. [4k, 128k]"),
    "a document of one token": (
        {"perplexity": {"a": {"path": "/d", "length": 1}}},
        "perplexity.a.length: 1: the first token of a document is not predicted; write 2 or more",
    ),
    "no haystack": ({"ruler": {"tasks": ["niah_single_2"]}}, "haystack is missing, and niah_single_2 hides its needl"),
    "no questions": ({"ruler": {"tasks": ["qa_1"]}}, "qa_1 is missing: the question set of that task; name its file"),
    "a harness of nothing": ({"harness": {"batch": 2}}, "harness: no task is named; write suite: report, or tasks: "),
    "ranks": ({"resources": {"nodes": 2}}, "resources: a shard is one task; write nodes: 1, gpus_per_node: 1, and mo"),
    "a tokenizer that the harness would not take": (
        {"checkpoints": {"hf": "/b"}, "tokenizer": "/t", "harness": HARNESS},
        "tokenizer: the harness takes that of checkpoints.hf; leave it out, or put it there",
    ),
    "a template that the harness would not take": (
        {"template": "/t.jinja", "harness": {**HARNESS, "chat": True}},
        "harness.chat: it takes the template of what is scored, not `template`; leave one out",
    ),
}


def load(folder: Path, keys: dict[str, Any]) -> Evaluate:
    spec = {"kind": "evaluate", "name": "eval", "checkpoints": "a", "recall": RECALL, **keys}
    spec["resources"] = {"time": "1h", "nodes": 1, "gpus_per_node": 1, **keys.get("resources", {})}
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
    job = load_job(folder / "spec.yaml", []).job
    assert isinstance(job, Evaluate)
    return job


@pytest.mark.parametrize(("keys", "said"), SAID.values(), ids=SAID)
def test_a_wrong_value_is_named_with_what_to_write(tmp_path: Path, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError) as refused:
        load(tmp_path, keys)
    assert said in str(refused.value)


def test_what_the_harness_does_not_read_may_stand_beside_it(tmp_path: Path) -> None:
    job = load(tmp_path, {"tokenizer": "/t", "template": "/t.jinja", "harness": HARNESS})
    assert (job.suites, job.longest) == (("recall", "harness"), 4096)
    load(tmp_path, {"checkpoints": {"hf": "/b"}, "harness": {**HARNESS, "chat": True}})
