"""`xgen samples`: answers of a run of online RL, as a person reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from tests.conftest import xgen
from xgen.posttrain.rl.answers import Answer, Group, Judged
from xgen.posttrain.rl.samples import read_samples, write_samples
from xgen.runs import RunDir

TEXTS = {1: "It is 19.", 2: "20", 3: "19\nor so"}


def answer(token: int, judged: Judged, finish: Literal["stop", "length"] = "stop") -> Answer:
    tokens = np.array([token, 0], dtype=np.int32)
    return Answer(tokens, np.zeros(2, np.float32), finish, ((4, 2),), judged)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "sums-abcdef")
    run.create()
    run.spec_file.write_text("kind: rl\n")
    right = Judged(1.0, {"math": 1.0, "length": 0.0}, {}, 0.1)
    wrong = Judged(-0.5, {"math": 0.0, "length": -0.5}, {}, 0.1)
    failed = Judged(None, {"math": None, "length": 0.0}, {"math": "error"}, 10.0, {"math": "no sympy"})
    groups = [
        Group(7, "sums", (answer(1, right), answer(2, wrong, "length"))),
        Group(8, "words", (answer(3, failed), answer(1, right))),
    ]
    advantages = np.array([[0.7, -0.7], [np.nan, 0.0]], dtype=np.float32)
    for step in (10, 20):
        write_samples(run, step, groups, advantages, lambda n: f"What is {n} + 12?", lambda t: TEXTS[int(t[0])])
    return run


def test_answers_are_shown_by_prompt_with_what_they_were_worth(run: RunDir) -> None:
    done = xgen("samples", str(run.path))
    assert done.stdout.splitlines() == [
        "sums-abcdef  step 20  4 answers to 2 prompts: mean reward 0.500, 66.7% right, 1 without a verdict",
        "",
        "prompt 7 of sums",
        "  | What is 7 + 12?",
        "  right  reward 1  (math 1, length 0)  advantage +0.70  2 tokens",
        "      It is 19.",
        "  wrong  reward -0.5  (math 0, length -0.5)  advantage -0.70  2 tokens, cut",
        "      20",
        "",
        "prompt 8 of words",
        "  | What is 8 + 12?",
        "  no verdict  (math error: no sympy, length 0)  does not train  2 tokens",
        "      19",
        "      or so",
        "  right  reward 1  (math 1, length 0)  advantage +0.00  2 tokens",
        "      It is 19.",
    ]


@pytest.mark.parametrize(
    ("options", "first", "count"),
    [(["--best"], 1.0, 3), (["--worst"], -0.5, 3), (["--failed"], None, 1), (["--source", "words", "--best"], 1.0, 1)],
)
def test_single_answers_can_be_picked(run: RunDir, options: list[str], first: float | None, count: int) -> None:
    found = json.loads(xgen("samples", str(run.path), "--json", *options).stdout)
    assert len(found) == count
    assert [len(group["answers"]) for group in found] == [1] * count
    assert found[0]["answers"][0]["reward"] == first


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--step", "15"], "has kept no answers of step 15; it has those of 10, 20"),
        (["--source", "code"], "has no answers to prompts of code; it has those of sums, words"),
        (["--best", "--failed"], "write one of --best, --worst and --failed"),
        (["-n", "0"], "--number: 0 shows nothing; write 1 or more"),
    ],
)
def test_a_mistake_is_one_line(run: RunDir, options: list[str], said: str) -> None:
    done = xgen("samples", str(run.path), *options)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_damaged_file_and_a_run_without_answers_are_said(run: RunDir, tmp_path: Path) -> None:
    (run.path / "samples" / "step-20.jsonl").write_bytes(b'{"step": 20, "numb')
    assert "step-20.jsonl is damaged" in xgen("samples", str(run.path)).stderr
    assert len(list(read_samples(run, 10))) == 2
    other = RunDir(tmp_path / "other-abcdef")
    other.create()
    other.spec_file.write_text("kind: pretrain\n")
    assert "has kept no answers: only runs of kind rl do" in xgen("samples", str(other.path)).stderr


def test_whatever_a_model_writes_is_read_back_and_no_terminal_obeys_it(run: RunDir) -> None:
    said = "one\u2028two\x85three \x1b]0;mine\x07 \x1b[2J\tend"
    group = Group(7, "sums", (answer(1, Judged(1.0, {"math": 1.0}, {}, 0.1)),))
    write_samples(run, 30, [group], np.array([[0.5]], dtype=np.float32), lambda _: "\x1b[31m?", lambda _: said)
    assert [one.answers[0].text for one in read_samples(run, 30)] == [said]
    shown = xgen("samples", str(run.path)).stdout
    assert "\x1b" not in shown
    assert "three \\x1b]0;mine\\x07 \\x1b[2J\tend" in shown
    assert "  | \\x1b[31m?" in shown
