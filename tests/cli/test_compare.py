"""`xgen compare` as a person types it."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Project
from tests.cli.test_imports import HEAVY, modules_of
from tests.evals.made import answers, evaluation, make_evaluation, make_training, training


@pytest.fixture
def compared(project: Project) -> Project:
    for name, right in (("base", [1, 0] * 20), ("wide", [1, 1] * 20)):
        make_training(project.runs, f"{name}-aaaaaa", training(name), [3.0] * 40)
        job = evaluation(run=f"{name}-aaaaaa")
        make_evaluation(project.runs, f"eval-{name}22", job, {40: answers("ruler", "vt", 4096, right)})
    return project


def run(project: Project, *arguments: str) -> tuple[int, str, str]:
    done = project.xgen("compare", *arguments, "--cluster", "local")
    return done.returncode, done.stdout, done.stderr


def test_two_runs_are_compared_and_written(compared: Project) -> None:
    code, out, err = run(compared, "base", "wide@40", "--out", "compared", "--level", "0.9")
    assert (code, err) == (0, "")
    assert out.startswith("Runs\n  A is base-aaaaaa\n  B is wide-aaaaaa@40\n")
    assert "  average 4k  50.0  100.0  +50.0 [" in out and "90% intervals" in out
    assert out.endswith("\ncompared/compare.md and 3 more files\n")
    assert {path.name for path in (compared.path / "compared").iterdir()} == {
        "compare.json", "compare.md", "loss.svg", "ruler.svg"
    }  # fmt: skip


def test_json_has_the_differences_with_their_tests(compared: Project) -> None:
    code, out, _ = run(compared, "base-aaaaaa", "eval-wide22", "--json", "--report")
    document = json.loads(out)
    assert code == 0
    assert [one["name"] for one in document["runs"]] == ["base-aaaaaa", "wide-aaaaaa"]
    (pair,) = document["pairs"]
    (score,) = [one for one in pair["scores"] if one["task"] == "average"]
    assert (score["test"]["mean"], score["verdict"], score["paired"]) == (0.5, "better", 40)
    assert document["published"] == []  # one task of 13 is no score of RULER
    assert any(note.startswith("Nothing stands beside published scores") for note in document["notes"])


def test_mistakes_are_a_line_each(compared: Project) -> None:
    compared.xgen("submit", "hello.yaml", "--cluster", "local", "--id", "aaaaaa")
    for arguments, said in (
        (("base",), "base alone: name another run, or write --report to hold it against published scores\n"),
        (("base", "wide", "--level", "95"), "--level: 95 is no share of certainty; write e.g. 0.95\n"),
        (("base", "wide@x"), "wide@x: 'x' is no step; write RUN@STEP, e.g. wide@500\n"),
        (("base", "hello"), "hello-aaaaaa is a run of kind command; write runs that train or evaluate\n"),
        (
            ("base", "wide@900"),
            "wide-aaaaaa@900 is no step that was trained, the last being 40, nor one that was evaluated\n",
        ),
    ):
        assert run(compared, *arguments) == (2, "", said)
    code, out, err = run(compared, "base", "nobody")
    assert (code, out) == (2, "") and err.startswith(f"no run nobody in {compared.runs}; ")


def test_neither_torch_nor_a_scheduler_is_loaded(compared: Project) -> None:
    loaded = modules_of(compared, "compare", "base", "wide", "--cluster", "local")
    assert loaded & (HEAVY - {"numpy"}) == set()
