"""`xgen data curate`: the steps of a curation here and now, and what its mistakes are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import xgen
from xgen.data.tokenizer import Tokenizer


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """Two inputs, the second with one line that is broken and one that is a copy of the first's."""
    (tmp_path / "pyproject.toml").touch()
    Tokenizer.train(["some text of few words"], 257).save(tmp_path / "tokenizer.json")
    first = [json.dumps({"text": f"page {n}: " + " ".join(f"word{n * 7 + k}" for k in range(40))}) for n in range(20)]
    (tmp_path / "one.jsonl").write_text("\n".join(first) + "\n")
    (tmp_path / "two.jsonl").write_text(f'{first[0]}\n{{"text": \n{{"text": "a page of its own"}}\n')
    job: dict[str, Any] = {
        "kind": "curate", "name": "pages", "out": "out", "tokenizer": "tokenizer.json", "resources": {"time": "5m"},
        "inputs": [{"path": "one.jsonl", "domain": "one"}, {"path": "two.jsonl", "domain": "two"}],
        "mixtures": {"all": {"tokens": 3000}},
    }  # fmt: skip
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(job))
    return tmp_path / "spec.yaml"


def test_all_steps_run_and_the_funnel_is_shown(spec: Path) -> None:
    done = xgen("data", "curate", str(spec), "--workers", "2")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:9]] == [
        "prepare", "tag", "match", "cluster", "select", "balance", "deal", "shuffle", "assemble",
    ]  # fmt: skip
    assert any(line.split() == ["exact", "21", "0.0", "exact.duplicate", "1"] for line in lines), done.stdout
    assert "  not read: 1  is no JSON" in lines
    assert any(line.startswith("  mixture all: 3,000 of 3,000 tokens, ") for line in lines)


def test_a_step_alone_needs_those_before_it(spec: Path) -> None:
    done = xgen("data", "curate", str(spec), "--only", "match")
    assert done.returncode == 2
    assert "has no plan.json; run the step prepare first" in done.stderr
    assert xgen("data", "curate", str(spec), "--only", "prepare", "--only", "tag").returncode == 0
    done = xgen("data", "curate", str(spec), "--only", "match", "--json")
    assert list(json.loads(done.stdout)["seconds"]) == ["match"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--only", "shufle"), "--only shufle is no step of this job; write one of prepare, tag, match"),
        (("--set", "inputs.0.path=gone.jsonl"), "gone.jsonl: does not exist; name a file, a folder, a URL, or hf:NAME"),
        (("--set", "mixtures.all.tokens=0"), "mixtures.all.tokens"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(spec: Path, arguments: tuple[str, ...], said: str) -> None:
    done = xgen("data", "curate", str(spec), *arguments)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert said in done.stderr


def test_another_kind_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text("{kind: command, name: a, command: [ls], resources: {time: 5m}}")
    done = xgen("data", "curate", str(file))
    assert done.returncode == 2
    assert "kind: command is no curation" in done.stderr
