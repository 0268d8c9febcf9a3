"""RULER, needles and recall through a model that answers by a rule."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import ROOT
from tests.evals.suites.readers import AT_ONCE, Reader, ScriptedSubject, guessing, job, perfect, recent, ruler
from xgen.data.errors import StoreError
from xgen.engine import EngineError
from xgen.evals.protocol import Item, Record, Suite
from xgen.evals.ruler import FILL, TASKS, Counter
from xgen.evals.suites import suites_of
from xgen.evals.suites.answers import ahead
from xgen.evals.suites.made import NEEDLE_TOKENS, needles, recall_of
from xgen.evals.suites.prompts import Prompts
from xgen.runs import Refused
from xgen.spec import Evaluate, NeedleMap, Recall


def never() -> bool:
    return False


def scored(
    asked: Evaluate, tokenizer: tokenizers.Tokenizer, cache: Path, reader: Reader = perfect, part: slice = slice(None)
) -> list[Record]:
    subject = ScriptedSubject(tokenizer, reader)
    records = []
    for suite in suites_of(asked, subject, cache):
        items = suite.items()[part]
        own = list(suite.score(subject, items, never))
        assert sorted(record.item.index for record in own) == sorted(item.index for item in items)
        assert {record.item for record in own} == set(items)
        records += own
    return records


def test_a_perfect_reader_scores_one_in_every_task(folder: Path, tokenizer: tokenizers.Tokenizer, cache: Path) -> None:
    asked = job(
        **ruler(folder, lengths=[4096], samples=2),
        needles={"lengths": [512], "depths": 3, "samples": 2},
        recall={"lengths": [4096], "samples": 2},
    )
    records = scored(asked, tokenizer, cache)
    assert {record.task for record in records} == {*TASKS, "noise", "json_kv"}
    assert [(record.task, record.answer) for record in records if record.score < 1] == []
    assert all(record.seconds == 0.5 and 0 < record.tokens <= record.length for record in records)
    sources = {record.task: record.source for record in records}
    assert "haystack.txt (" in sources["niah_single_2"] and "squad.json (" in sources["qa_1"]
    assert not sources["niah_single_1"] and not sources["noise"] and not sources["json_kv"]


def test_a_guess_scores_nothing(folder: Path, tokenizer: tokenizers.Tokenizer, cache: Path) -> None:
    asked = job(
        **ruler(folder, lengths=[4096], samples=1), needles={"lengths": [512], "samples": 1}, recall={"lengths": [2048]}
    )
    assert sum(record.score for record in scored(asked, tokenizer, cache, guessing)) == 0


@pytest.mark.parametrize("haystack", [None, "haystack.txt"])
def test_recency_alone_finds_the_needles_of_the_last_third(
    folder: Path, tokenizer: tokenizers.Tokenizer, cache: Path, haystack: str | None
) -> None:
    path = str(folder / haystack) if haystack else None
    asked = job(needles={"lengths": [2048, 4096], "depths": 11, "samples": 3, "haystack": path})
    records = scored(asked, tokenizer, cache, recent)
    assert {record.task for record in records} == {"essay" if haystack else "noise"} and len(records) == 66
    assert sorted({record.depth or 0 for record in records}) == [round(number / 10, 6) for number in range(11)]
    assert all(record.score == (record.depth > 0.65) for record in records if record.depth is not None)
    assert all(bool(record.source) == bool(haystack) for record in records)
    perfectly = scored(asked, tokenizer, cache)
    assert len({record.answer for record in perfectly}) == 66  # the needles of a depth are its own


def test_recency_alone_recalls_the_keys_of_the_last_third(
    folder: Path, tokenizer: tokenizers.Tokenizer, cache: Path
) -> None:
    records = scored(job(recall={"lengths": [8192], "samples": 60}), tokenizer, cache, recent)
    for record in records:
        assert record.depth is not None
        if abs(record.depth - 2 / 3) > 0.02:  # a pair is a hundredth of the object
            assert record.score == (record.depth > 2 / 3)
    thirds = [sum(int(3 * (record.depth or 0)) == third for record in records) for third in range(3)]
    assert min(thirds) >= 10  # any place is as likely as another


def test_a_part_of_the_items_gives_the_records_of_the_whole(
    folder: Path, tokenizer: tokenizers.Tokenizer, cache: Path
) -> None:
    tasks = ["niah_single_1", "niah_multikey_1", "cwe"]
    asked = job(**ruler(folder, tasks=tasks, lengths=[4096, 2048], samples=3), needles={"lengths": [1024]})
    whole = {record.item: record for record in scored(asked, tokenizer, cache)}
    parts = [record for shard in range(3) for record in scored(asked, tokenizer, cache, part=slice(shard, None, 3))]
    assert {record.item: record for record in parts} == whole and len(parts) == len(whole)


def test_a_sample_is_the_same_however_many_there_are(
    folder: Path, tokenizer: tokenizers.Tokenizer, cache: Path
) -> None:
    def digests(samples: int, lengths: list[int], depths: int) -> dict[Item, str]:
        asked = job(
            **ruler(folder, tasks=["vt", "qa_2"], lengths=lengths, samples=samples),
            needles={"lengths": lengths, "depths": depths, "samples": samples},
            recall={"lengths": lengths, "samples": samples},
        )
        return {record.item: record.digest for record in scored(asked, tokenizer, cache)}

    few, many = digests(2, [2048], 3), digests(3, [2048, 4096], 5)
    assert few.items() <= many.items() and len(set(many.values())) == len(many)


DIGESTS = """
import json, sys
from pathlib import Path
import tokenizers
from tests.evals.suites.readers import ScriptedSubject, job
from xgen.evals.suites import suites_of
tokenizer, cache, asked, shard = json.loads(sys.argv[1])
subject = ScriptedSubject(tokenizers.Tokenizer.from_file(tokenizer))
for suite in suites_of(job(**asked), subject, Path(cache)):
    for record in suite.score(subject, suite.items()[shard::2], lambda: False):
        print(json.dumps([record.suite, record.task, record.length, record.index, record.depth, record.digest]))
"""


def test_shards_in_other_processes_make_the_same_samples(
    folder: Path, tokenizer: tokenizers.Tokenizer, cache: Path, tmp_path: Path
) -> None:
    keys = {
        **ruler(folder, tasks=["vt", "qa_1"], lengths=[4096], samples=2),
        "needles": {"lengths": [512], "depths": 2, "samples": 1},
        "recall": {"lengths": [2048], "samples": 3},
    }
    inputs = str(folder / "chat/tokenizer.json"), str(tmp_path), keys
    began = [  # a cache that is empty, and filled by both at once
        subprocess.Popen(
            [sys.executable, "-c", DIGESTS, json.dumps([*inputs, shard])], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for shard in range(2)
    ]
    found = [json.loads(line) for process in began for line in process.communicate(timeout=120)[0].splitlines()]
    assert {Item(*fields): digest for *fields, digest in found} == {
        record.item: record.digest for record in scored(job(**keys), tokenizer, cache)
    }


def test_short_lengths_come_first(folder: Path, tokenizer: tokenizers.Tokenizer, cache: Path) -> None:
    lengths = {"lengths": [4096, 1024, 2048]}
    asked = job(**ruler(folder, tasks=["niah_single_1", "fwe"], samples=2, **lengths), needles=lengths, recall=lengths)
    for suite in suites_of(asked, ScriptedSubject(tokenizer), cache):
        own = [item.length for item in suite.items()]
        assert own == sorted(own) and set(own) == {1024, 2048, 4096}


def test_a_stop_ends_it_after_the_sample_and_asks_no_more(tokenizer: tokenizers.Tokenizer, cache: Path) -> None:
    subject = ScriptedSubject(tokenizer, perfect)
    [suite] = suites_of(job(recall={"lengths": [1024], "samples": 40}), subject, cache)
    done: list[Record] = []
    for record in suite.score(subject, suite.items(), lambda: len(done) >= 5):
        done.append(record)
    assert len(done) == 5 and len(subject.scripted.prompts) <= 5 + AT_ONCE


def test_samples_are_made_as_the_model_takes_them() -> None:
    made: list[int] = []

    def values() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    taken = ahead(values(), 3)
    assert [next(taken) for _ in range(5)] == list(range(5))
    time.sleep(0.05)
    assert len(made) <= 9
    assert list(taken) == list(range(5, 100))
    with pytest.raises(ZeroDivisionError):
        list(ahead((1 // number for number in (1, 0, 1)), 3))


@pytest.mark.parametrize(
    ("suites", "said"),
    [
        ({"recall": {"lengths": [128]}}, r"recall: length 128: sample 0 of json_kv takes \d+ tokens .* its answer 100"),
        ({"needles": {"lengths": [96, 4096]}}, r"needles: length 96: sample 0 of noise takes \d+ tokens"),
        ({"ruler": {"tasks": ["vt"], "lengths": [512]}}, r"ruler: length 512: sample 0 of vt .* ask for a longer one"),
    ],
)
def test_a_length_that_a_task_does_not_fit_is_refused_before_anything_is_scored(
    tokenizer: tokenizers.Tokenizer, cache: Path, suites: dict[str, Any], said: str
) -> None:
    [suite] = suites_of(job(**suites), ScriptedSubject(tokenizer), cache)
    with pytest.raises(Refused, match=said):
        suite.items()


def test_a_length_that_one_of_the_samples_does_not_fit_is_refused_before_anything_is_scored(
    folder: Path, tokenizer: tokenizers.Tokenizer, cache: Path, tmp_path: Path
) -> None:
    hops = json.loads((folder / "hotpot.json").read_text())
    hops[6]["context"][0][1] *= 60
    (tmp_path / "hotpot.json").write_text(json.dumps(hops))
    asked = job(**ruler(folder, tasks=["qa_2"], lengths=[4096], samples=9, qa_2=str(tmp_path / "hotpot.json")))
    [suite] = suites_of(asked, ScriptedSubject(tokenizer), cache)
    with pytest.raises(Refused, match=r"ruler: length 4096: sample 6 of qa_2 takes \d+ tokens without a haystack"):
        suite.items()


def test_an_input_that_is_missing_is_named(folder: Path, tokenizer: tokenizers.Tokenizer, cache: Path) -> None:
    with pytest.raises(StoreError, match=r"none\.json: does not exist"):
        suites_of(job(**ruler(folder, qa_1=str(folder / "none.json"))), ScriptedSubject(tokenizer), cache)


@pytest.mark.parametrize(("retryable", "raised"), [(True, EngineError), (False, Refused)])
def test_only_what_no_other_try_can_help_is_refused(
    tokenizer: tokenizers.Tokenizer, cache: Path, retryable: bool, raised: type[Exception]
) -> None:
    def broken(_: str) -> str:
        raise EngineError("no memory for 4096 tokens", retryable=retryable)

    subject = ScriptedSubject(tokenizer, broken)
    [suite] = suites_of(job(recall={"lengths": [1024]}), subject, cache)
    with pytest.raises(raised, match="no memory for 4096 tokens"):
        list(suite.score(subject, suite.items(), never))


def test_256k_is_planned_and_made_without_delay(folder: Path, tokenizer: tokenizers.Tokenizer, cache: Path) -> None:
    subject = ScriptedSubject(tokenizer)
    tasks = ["niah_multikey_3", "niah_single_2", "vt"]
    asked = job(
        **ruler(folder, tasks=tasks, lengths=[262144], samples=500), recall={"lengths": [262144], "samples": 500}
    )
    suites = suites_of(asked, subject, cache)
    for suite in suites:
        suite.items()  # the first tokenization
    began = time.process_time()
    for suite in suites:
        list(suite.score(subject, suite.items()[::499], never))
    assert len(subject.scripted.prompts) == 6
    assert time.process_time() - began < 20
    assert all(262144 * FILL < len(prompt.ids) + prompt.max_tokens <= 262144 for prompt in subject.scripted.prompts)


@pytest.fixture(scope="module")
def prompts(tokenizer: tokenizers.Tokenizer, cache: Path) -> Prompts:
    return Prompts(tokenizer, None, cache, begins=False)


def _suite(prompts: Prompts, folder: Path, kind: str, keys: dict[str, Any]) -> Suite:
    if kind == "recall":
        return recall_of(Recall.model_validate(keys), prompts)
    haystack = str(folder / "haystack.txt") if kind == "essay" else None
    return needles(NeedleMap.model_validate({**keys, "haystack": haystack}), prompts)


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(["noise", "essay", "recall"]), st.integers(360, 6000), st.integers(0, 10), st.integers(0, 2**30))
def test_any_length_and_depth_fits_and_is_full(
    folder: Path, tokenizer: tokenizers.Tokenizer, prompts: Prompts, kind: str, length: int, place: int, seed: int
) -> None:
    subject = ScriptedSubject(tokenizer, perfect)
    keys = {"lengths": [length], "samples": 1, "seed": seed}
    suite = _suite(prompts, folder, kind, keys if kind == "recall" else {**keys, "depths": 11})
    item = suite.items()[0 if kind == "recall" else place]
    [record] = suite.score(subject, [item], never)
    [prompt] = subject.scripted.prompts
    unit = 80 if kind == "recall" else 16  # tokens of a pair; of a sentence or a word, and the margin of a plan
    assert length - max(unit, length // 100) <= len(prompt.ids) + prompt.max_tokens <= length
    assert record.score == 1 and record.tokens == len(prompt.ids)
    text = tokenizer.decode(list(prompt.ids))
    assert record.depth is not None and abs(_depth(text, record.answer.split()[0]) - record.depth) < 0.05 + 160 / length


def _depth(text: str, value: str) -> float:
    begin, end = text.index("\n"), text.rindex("\n")
    return (text.index(value) - begin) / (end - begin)


def test_needles_answer_in_few_tokens(tokenizer: tokenizers.Tokenizer, cache: Path) -> None:
    subject = ScriptedSubject(tokenizer, perfect)
    [suite] = suites_of(job(needles={"lengths": [512], "depths": 2, "samples": 1}), subject, cache)
    list(suite.score(subject, suite.items(), never))
    assert {prompt.max_tokens for prompt in subject.scripted.prompts} == {NEEDLE_TOKENS}
    assert {prompt.stop for prompt in subject.scripted.prompts} == {subject.stop}
    assert Counter(tokenizer).count([" The special magic number is 1234567."])[0] < NEEDLE_TOKENS
