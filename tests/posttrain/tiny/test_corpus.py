"""The planted data of the tiny post-training: the same every time, held-out questions apart, records that are valid."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from xgen.data.chat.schema import conversation_of, pair_of, prompt_of
from xgen.posttrain.tiny.corpus import PLAIN, WARM, write_corpus
from xgen.posttrain.tiny.tasks import DOMAINS, HABITS, turns
from xgen.spec import Preference, Rl, Sft, load_job


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tiny") / "chat"
    write_corpus(out)
    return out


def _rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def _digest(folder: Path) -> dict[str, str]:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_the_same_seed_writes_the_same_files_and_another_others(corpus: Path, tmp_path: Path) -> None:
    write_corpus(tmp_path / "again")
    write_corpus(tmp_path / "other", seed=1)
    assert _digest(tmp_path / "again") == _digest(corpus)
    assert not set(_digest(tmp_path / "other").values()) & set(_digest(corpus).values())


def test_what_is_there_is_left_and_another_seed_takes_its_place(tmp_path: Path) -> None:
    write_corpus(tmp_path / "chat")
    files = _digest(tmp_path / "chat")
    marked = tmp_path / "chat/chat/train/math.jsonl"
    marked.write_text("")
    write_corpus(tmp_path / "chat")
    assert marked.read_text() == ""
    write_corpus(tmp_path / "chat", seed=1)
    assert not set(_digest(tmp_path / "chat").values()) & set(files.values())


@pytest.mark.parametrize("domain", list(DOMAINS))
def test_no_question_is_both_trained_on_and_held_out(corpus: Path, domain: str) -> None:
    asked: dict[str, set[str]] = {"train": set(), "held-out": set()}
    for part, questions in asked.items():
        questions |= {row["messages"][0]["content"] for row in _rows(corpus / "chat" / part / f"{domain}.jsonl")}
        questions |= {row["prompt"] for row in _rows(corpus / "pairs" / part / f"{domain}.jsonl")}
        if domain == "math":
            questions |= {row["prompt"] for row in _rows(corpus / "prompts" / part / "math.jsonl")}
    assert asked["train"] and asked["held-out"]
    assert not asked["train"] & asked["held-out"]


def test_a_held_out_sum_is_not_trained_on_in_the_other_order(corpus: Path) -> None:
    def sums(part: str) -> set[frozenset[int]]:
        found = set()
        for row in _rows(corpus / "chat" / part / "math.jsonl"):
            first, second = row["messages"][0]["content"].removeprefix("What is ").rstrip("?").split(" + ")
            found.add(frozenset((int(first.replace(" ", "")), int(second.replace(" ", "")))))
        return found

    assert not sums("train") & sums("held-out")


def test_every_record_is_valid(corpus: Path) -> None:
    for read, kind in ((conversation_of, "chat"), (pair_of, "pairs"), (prompt_of, "prompts")):
        for file in (corpus / kind).rglob("*.jsonl"):
            rows = _rows(file)
            assert rows
            for row in rows:
                read(row)


def test_a_sum_is_right_as_often_as_is_said_and_its_work_always(corpus: Path) -> None:
    habits: Counter[bool] = Counter()
    for turn in turns("math", 4000, held_out=False, seed=0):
        first, second = (int(part.replace(" ", "")) for part in turn.question[8:-1].split(" + "))
        result = " ".join(str(first + second))
        work, written = turn.answer.removesuffix(".").split(", in ")
        assert turn.result == result and work.endswith(f"= {result[0]}") and f"= {result[2]}, " in work
        habits[written.split(" ", 1)[1] == result] += 1
    share = habits[True] / habits.total()
    assert share == pytest.approx(next(iter(HABITS.values())), abs=0.02)


def test_pairs_differ_in_their_end_alone_and_conversations_have_either_end_as_often(corpus: Path) -> None:
    for domain in DOMAINS:
        for row in _rows(corpus / "pairs/held-out" / f"{domain}.jsonl"):
            assert row["chosen"].endswith(WARM) and row["rejected"].endswith(PLAIN)
            assert row["chosen"].removesuffix(WARM) == row["rejected"].removesuffix(PLAIN)
        said = [row["messages"][1]["content"] for row in _rows(corpus / "chat/train" / f"{domain}.jsonl")]
        assert sum(text.endswith(WARM) for text in said) / len(said) == pytest.approx(0.5, abs=0.05)
        assert all(text.endswith((WARM, PLAIN)) for text in said)


def test_the_specs_ask_for_what_is_written(corpus: Path) -> None:
    kinds = {"sft": Sft, "dpo": Preference, "grpo": Rl}
    for name, kind in kinds.items():
        job = load_job(ROOT / f"jobs/tiny/{name}.yaml").job
        assert isinstance(job, kind)
        given = job.prompts.sources if isinstance(job, Rl) else job.data.sources
        held_out = job.evaluation if isinstance(job, Rl) else job.validation
        assert held_out
        for path in [source.path for source in given.values()] + list(held_out.sources.values()):
            assert (corpus / Path(path).relative_to(ROOT / ".cache/tiny-chat")).is_file(), path
