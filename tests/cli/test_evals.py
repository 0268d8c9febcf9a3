"""`xgen evals report`: what a person who is curious sees, and what one who errs is told."""

from __future__ import annotations

import json

from tests.cli.conftest import Project
from tests.cli.test_imports import HEAVY, modules_of
from tests.evals.made import answers, evaluation, make_evaluation


def made(project: Project, name: str = "eval-aaaaaa", done: bool = True) -> None:
    records = [record for task in ("niah_single_1", "vt") for record in answers("ruler", task, 1024, [1, 1, 0, 1])]
    make_evaluation(project.runs, name, evaluation(), {100: records, 200: records[:5]}, done)


def report(project: Project, *arguments: str) -> tuple[int, str, str]:
    done = project.xgen("evals", "report", *arguments, "--cluster", "local")
    return done.returncode, done.stdout, done.stderr


def test_the_report_is_shown_and_written(project: Project) -> None:
    made(project)
    code, out, err = report(project, "eval", "--out", "report", "--step", "100")
    assert (code, err) == (0, "")
    assert out.startswith("train-aaaaaa@100, evaluated by eval-aaaaaa\n\nRULER\n")
    assert out.endswith("\nreport/results.md and 3 more files\n")
    assert {path.name for path in (project.path / "report").iterdir()} == {
        "results.json", "results.md", "ruler.svg", "steps.svg"
    }  # fmt: skip


def test_json_has_all_of_all_checkpoints(project: Project) -> None:
    made(project)
    code, out, _ = report(project, "eval-aaaaaa", "--json")
    document = json.loads(out)
    assert code == 0
    assert [one["step"] for one in document["checkpoints"]] == [100, 200]
    assert document["wanted"] == {"ruler": 16}


def test_a_run_that_goes_on_is_reported_so_far(project: Project) -> None:
    made(project, done=False)
    code, out, _ = report(project, "eval")
    assert code == 0
    assert "Not complete: ruler 5 of 16 samples." in out


def test_mistakes_are_a_line_each(project: Project) -> None:
    made(project)
    make_evaluation(project.runs, "none-aaaaaa", evaluation(), {})
    for arguments, said in (
        (("nobody",), f"no run nobody in {project.runs}; the newest are: eval-aaaaaa, none-aaaaaa\n"),
        (("none",), "none-aaaaaa has no scores: try again once a sample is done\n"),
        (("eval", "--step", "7"), "step 7 has no scores in eval-aaaaaa; write one of 100, 200\n"),
    ):
        assert report(project, *arguments) == (2, "", said)


def test_a_run_of_another_kind_is_no_evaluation(project: Project) -> None:
    project.xgen("submit", "hello.yaml", "--cluster", "local", "--id", "aaaaaa")
    said = "hello-aaaaaa is a run of kind command; `xgen evals report` takes one of kind evaluate\n"
    assert report(project, "hello") == (2, "", said)


def test_neither_torch_nor_a_scheduler_is_loaded(project: Project) -> None:
    made(project)
    loaded = modules_of(project, "evals", "report", "eval", "--cluster", "local")
    assert loaded & (HEAVY - {"numpy"}) == set()
