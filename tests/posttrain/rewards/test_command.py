"""`python -m xgen.posttrain.rewards`: rewards tried on a file of answers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


def run(*args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "xgen.posttrain.rewards", *map(str, args)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)


def test_each_answer_has_its_line_and_what_holds_answers_is_said(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    lines = [
        {"answer": "yes", "response": "yes"},
        {"answer": "yes", "response": "no"},
        {"response": "yes"},
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = run("{kind: exact}", file)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("verifiers: ")
    first, second, third = done.stdout.splitlines()
    assert first.split()[:2] == ["1", "1"]
    assert second.split()[:2] == ["2", "0"]
    assert "no score" in third and "'answer'" in third
    verdicts = [json.loads(line) for line in run("{kind: exact}", file, "--json").stdout.splitlines()]
    assert [verdict["score"] for verdict in verdicts] == [1, 0, None]


@pytest.mark.parametrize(
    ("rewards", "content", "message"),
    [
        ("{kind: mth}", "{}", "'mth'"),
        ("{kind: format, pattern: '('}", "{}", "no regular expression"),
        ("{kind: exact}", "{}", "answers.jsonl:1: write a JSON object with the text `response`"),
        ("{kind: exact}", "[1]", "answers.jsonl:1"),
        ("{kind: exact", "{}", "no YAML"),
        ("{kind: exact}", b"\xff", "answers.jsonl: is not UTF-8"),
        ("{kind: exact}", '{"response": "a", "num_tokens": "x"}', "answers.jsonl:1: num_tokens is 'x'"),
    ],
)
def test_a_mistake_is_a_line_that_says_what_to_write(
    tmp_path: Path, rewards: str, content: str | bytes, message: str
) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    done = run(rewards, file)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_limit_that_is_none_is_named(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text('{"answer": "a\u2028", "response": "a\u2028"}\n')  # one line
    assert run("{kind: exact}", file).stdout.split()[:2] == ["1", "1"]
    done = run("{kind: exact}", file, "--seconds", "0")
    assert (done.returncode, done.stderr[:12]) == (2, "--seconds 0.")
