"""`xgen data chat` as a person calls it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.cli.test_data import command, xgen
from tests.conftest import ROOT
from tests.data.chat.made import assistant, preference, rl, sft, user, write_lines, write_tokenizer
from tests.terminal import Terminal
from xgen.data.chat.template import CHATML


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Paths in specs begin at the folder with a .git."""
    (tmp_path / ".git").mkdir()
    write_tokenizer(tmp_path / "tokenizer", CHATML)
    records = [{"messages": [user(f"{n}?"), assistant("fox " * (n % 9 + 1))]} for n in range(40)]
    write_lines(tmp_path / "a.jsonl", [*records, {"text": "no chat"}])
    return tmp_path


def test_a_store_is_prepared_once_and_described(folder: Path) -> None:
    sft(folder, "validation.sources.h=a.jsonl")
    first = xgen("chat", folder / "spec.yaml", "--set", "validation.sources.h=a.jsonl")
    assert first.returncode == 0, first.stderr
    assert "prepared, fingerprint" in first.stdout
    assert "an answer ends with <|im_end|>" in first.stdout
    assert "1  left out: has no conversation" in first.stdout
    again = xgen("chat", folder / "spec.yaml", "--set", "validation.sources.h=a.jsonl", "--json")
    facts = json.loads(again.stdout)
    train, held = facts["sources"]["train/a"], facts["sources"]["held-out/h"]
    assert (facts["written"], facts["num_sequences"], facts["prompt_continues"]) == (False, 40, True)
    assert (train["records"], held["records"], train["left_out"]) == (40, 40, {"has no conversation": 1})
    assert train["share"] == 1 and train["epochs"] > 1 and 0 <= facts["padding"] < 0.5
    assert train["sequences"] == held["sequences"] > 3


def test_a_dry_run_shows_what_is_learnt_and_writes_nothing(folder: Path) -> None:
    sft(folder)
    result = xgen("chat", folder / "spec.yaml", "--dry-run", "--show", "1")
    assert result.returncode == 0, result.stderr
    assert "train/a                       1 files" in result.stdout and "nothing was written" in result.stdout
    assert "a.jsonl: line 1, " in result.stdout
    assert "<|im_start|>user\n0?<|im_end|>\n<|im_start|>assistant\n⟦fox <|im_end|>⟧\n" in result.stdout
    assert not (folder / "store").exists()


def test_what_is_learnt_is_green_on_a_terminal(folder: Path) -> None:
    sft(folder)
    terminal, chat = Terminal(), command("chat", folder / "spec.yaml", "--dry-run", "--show", "1")
    done = subprocess.run(chat, cwd=ROOT, stdout=terminal.fd, timeout=60)
    shown = terminal.close().replace("\r\n", "\n")
    assert done.returncode == 0
    assert "assistant\n\x1b[1;32mfox <|im_end|>\x1b[0m\n" in shown


def test_pairs_show_both_answers(folder: Path) -> None:
    write_lines(folder / "a.jsonl", [{"prompt": "which?", "chosen": "fox", "rejected": "bear"}])
    preference(folder)
    result = xgen("chat", folder / "spec.yaml", "--show", "1", "--json")
    shown = json.loads(result.stdout)["shown"]
    learnt = [[run["text"] for run in one["runs"] if run["learnt"]] for one in shown]
    assert learnt == [["fox<|im_end|>"], ["bear<|im_end|>"]]


def test_prompts_of_online_rl_are_counted_and_shown(folder: Path) -> None:
    write_lines(folder / "a.jsonl", [{"prompt": f"{n} + 1?", "answer": n + 1} for n in range(20)])
    rl(folder)
    result = xgen("chat", folder / "spec.yaml", "--show", "1")
    assert result.returncode == 0, result.stderr
    assert "answer: 1, " in result.stdout
    assert "<|im_start|>user\n0 + 1?<|im_end|>\n<|im_start|>assistant\n" in result.stdout
    assert json.loads(xgen("chat", folder / "spec.yaml", "--json").stdout)["sources"]["train/a"]["epochs"] == 2


def test_a_prompt_that_an_answer_would_not_follow_is_warned_of(folder: Path) -> None:
    template = "{% for m in messages %}{{ m.role + ': ' + m.content }}{% endfor %}"
    ending = "{% if add_generation_prompt %}assistant: {% endif %}"
    (folder / "joined.jinja").write_text(template + ending)
    sft(folder)
    result = xgen("chat", folder / "spec.yaml", "--set", "data.template=joined.jinja", "--dry-run")
    assert "warning: the end of a prompt becomes one token with the answer's first word" in result.stdout
    assert "warning: a model that learns no end of its turn does not stop" in result.stdout


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("data.sources.a=missing.jsonl", "missing.jsonl: does not exist"),
        ("data.out=null", "data.out: is missing, and there is no run; write data.out: FOLDER"),
        ("data.tokenizer=nowhere", "does not exist; name a tokenizer.json"),
        ("data.sources.a.max_epochs=0.1", "data.sources.a: its 40 records would be seen"),
    ],
)
def test_a_mistake_is_one_line(change: str, said: str, folder: Path) -> None:
    sft(folder, sources="{a: {path: a.jsonl}}")
    result = xgen("chat", folder / "spec.yaml", "--set", change)
    assert (result.returncode, result.stdout, len(result.stderr.splitlines())) == (2, "", 1)
    assert said in result.stderr
