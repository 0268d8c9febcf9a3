"""`xgen evals fetch` from a server that speaks the hub's API, over loopback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.conftest import xgen
from tests.data.test_fetch import Server, server
from xgen.evals.harness.process import offline

__all__ = ["server"]
TASK = """
task: held_out
dataset_path: org/web
training_split: train
test_split: test
output_type: loglikelihood
doc_to_text: "{{begin}}"
doc_to_target: " {{end}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""
LINES = b"".join(b'{"begin": "document", "end": "%d"}\n' % n for n in range(300))
FILES = {"README.md": b"# Web\n", "data/train-00000.jsonl": LINES, "data/test-00000.jsonl": LINES[:-1]}


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/held_out.yaml").write_text(TASK)
    keys = {
        "kind": "evaluate",
        "name": "knowledge",
        "checkpoints": {"hf": "/models/none"},
        "harness": {
            "tasks": {"held_out": 1}, "include": str(tmp_path / "tasks"), "datasets": str(tmp_path / "datasets"),
        },
        "resources": {"nodes": 1, "gpus_per_node": 0, "time": "1h"},
    }  # fmt: skip
    (tmp_path / "evaluate.yaml").write_text(yaml.safe_dump(keys))
    return tmp_path / "evaluate.yaml"


def environment(server: Server, **more: str) -> dict[str, str]:
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"), "")
    return {"HF_ENDPOINT": server.address, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "", **proxies, **more}


def test_data_sets_come_and_load_without_a_network(server: Server, spec: Path) -> None:
    server.files = FILES
    first = xgen("evals", "fetch", str(spec), env=environment(server))
    assert first.returncode == 0, first.stderr
    assert "held_out" in first.stdout and "300 documents, 0.0 MB came" in first.stdout
    assert f"{spec.parent}/datasets  1 task, 300 documents, all load without a network" in first.stdout


@pytest.mark.slow
def test_a_second_call_brings_nothing(server: Server, spec: Path) -> None:
    server.files = FILES
    for came in (True, False):
        result = xgen("evals", "fetch", str(spec), "--json", env=environment(server))
        (found,) = json.loads(result.stdout)["tasks"]
        assert (found["name"], found["documents"], found["bytes"] > 0) == ("held_out", 300, came)


def test_a_folder_that_is_read_only_is_read(tmp_path: Path) -> None:
    there = tmp_path / "there" / "datasets" / "org___web"
    there.mkdir(parents=True)
    for name in ("web-train.arrow", "web.lock"):
        (there / name).write_text(name)
    (tmp_path / "there" / "datasets" / "downloads").mkdir()
    for _ in range(2):
        environment = offline(tmp_path / "there", tmp_path / "own")
    own = Path(environment["HF_HOME"]) / "datasets"
    assert [str(path.relative_to(own)) for path in sorted(own.rglob("*"))] == ["org___web", "org___web/web-train.arrow"]
    assert (own / "org___web/web-train.arrow").resolve() == there / "web-train.arrow"


@pytest.mark.slow
def test_what_the_hub_has_not_is_one_line_and_another_try_may_help(server: Server, spec: Path) -> None:
    task = spec.parent / "tasks/held_out.yaml"
    task.write_text(TASK.replace("org/web", "org/none"))
    result = xgen("evals", "fetch", str(spec), env=environment(server))
    assert result.returncode == 1
    assert "harness: the data set of task held_out did not come: DatasetNotFoundError: " in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_without_a_network_it_says_so(server: Server, spec: Path) -> None:
    result = xgen("evals", "fetch", str(spec), env=environment(server, HF_ENDPOINT="http://127.0.0.1:9"))
    assert result.returncode == 1
    assert "harness: the data set of task held_out did not come: " in result.stderr
    assert "Traceback" not in result.stderr


def test_a_spec_without_a_harness_or_a_folder_is_a_mistake(spec: Path) -> None:
    keys = yaml.safe_load(spec.read_text())
    del keys["harness"]["datasets"]
    spec.write_text(yaml.safe_dump(keys))
    result = xgen("evals", "fetch", str(spec))
    assert (result.returncode, result.stderr) == (
        2, "harness.datasets: no folder is named; write one on the shared file system\n",
    )  # fmt: skip
