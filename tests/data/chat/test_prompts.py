"""Prompts of online RL by their index."""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest

from tests.data.chat.made import rl, system, user, write_lines, write_tokenizer
from xgen.data import StoreError
from xgen.data.chat.prompts import load_tokenizer, read_evaluation, read_prompts
from xgen.data.chat.template import CHATML


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tokenizer(tmp_path / "tokenizer", CHATML)
    write_lines(tmp_path / "a.jsonl", [{"prompt": f"{n} + 1?", "answer": n + 1, "level": n % 3} for n in range(50)])
    write_lines(tmp_path / "b.jsonl", [{"messages": [system("Add."), user(f"{n}?")], "answer": "x"} for n in range(7)])
    return tmp_path


TWO = "{a: {path: a.jsonl, weight: 3}, b: b.jsonl}"


def test_a_prompt_ends_where_the_assistant_begins_and_keeps_its_record(folder: Path) -> None:
    job = rl(folder)
    prompts, tokenizer = read_prompts(job), load_tokenizer(job)
    found = sorted((prompts.at(index) for index in range(50)), key=lambda prompt: prompt.number)
    assert [prompt.number for prompt in found] == list(range(50))
    for n, prompt in enumerate(found):
        assert prompt.text == f"<|im_start|>user\n{n} + 1?<|im_end|>\n<|im_start|>assistant\n"
        assert tokenizer.backend.decode(list(prompt.tokens), skip_special_tokens=False) == prompt.text
        assert (prompt.source, prompt.answer, dict(prompt.record)) == (
            "a",
            str(n + 1),
            {"answer": n + 1, "level": n % 3},
        )
    assert tokenizer.stop == (tokenizer.added["<|im_end|>"],)


def test_large_tests_are_held_in_less_than_their_text(folder: Path) -> None:
    tests = [{"input": " ".join(map(str, range(n, n + 3000))), "output": str(n)} for n in range(20)]
    lines = [{"prompt": f"{n}?", "tests": tests} for n in range(20)]
    size = write_lines(folder / "a.jsonl", lines).stat().st_size
    tracemalloc.start()
    prompts = read_prompts(rl(folder))
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < size / 2
    assert prompts.at(0).record == {"tests": tests}


def test_every_epoch_of_a_source_has_each_prompt_once_in_another_order(folder: Path) -> None:
    prompts = read_prompts(rl(folder, sources=TWO))
    of_b = [prompt.number for index in range(1024) if (prompt := prompts.at(index)).source == "b"]
    epochs = [of_b[at : at + 7] for at in range(0, len(of_b) - 7, 7)]
    assert all(sorted(epoch) == list(range(50, 57)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 10


def test_sources_have_their_shares_and_an_index_always_the_same_prompt(folder: Path) -> None:
    job = rl(folder, sources=TWO)
    prompts, again = read_prompts(job), read_prompts(job)
    order = [prompts.at(index).number for index in range(4096)]
    assert Counter(number >= 50 for number in order) == {False: 3072, True: 1024}
    assert [again.at(index).number for index in (4095, 3, 1030)] == [order[4095], order[3], order[1030]]
    assert prompts.fingerprint == again.fingerprint != read_prompts(rl(folder, "seed=1", sources=TWO)).fingerprint
    other = read_prompts(rl(folder, "seed=1", sources=TWO))
    assert [other.at(index).number for index in range(100)] != order[:100]


def test_long_and_bad_prompts_are_left_out_and_counted(folder: Path) -> None:
    with (folder / "a.jsonl").open("a") as file:
        file.write('{"prompt": "' + "fox " * 60 + '"}\n{"answer": "3"}\nno json\n')
    source = read_prompts(rl(folder)).sources["a"]
    assert len(source.prompts) == 50
    assert source.left_out == {"is longer than 32 tokens": 1, "has no prompt": 1, "is no JSON": 1}
    assert "a.jsonl: line 52: has no prompt; write messages or prompt" in source.example


def test_a_source_of_which_nothing_is_left_says_why(folder: Path) -> None:
    write_lines(folder / "a.jsonl", [{"text": "a"}])
    with pytest.raises(StoreError, match=r"no prompt can be used; .*a.jsonl: line 1: has no prompt; write messages or"):
        read_prompts(rl(folder))


def test_a_cap_on_epochs_is_checked_ahead(folder: Path) -> None:
    read_prompts(rl(folder, sources="{a: {path: a.jsonl, max_epochs: 1}}"))  # 40 prompts in 10 steps
    with pytest.raises(
        StoreError, match=r"prompts.sources.a: its 50 prompts could be seen 1\.60 times, and max_epochs is 1"
    ):
        read_prompts(rl(folder, "train.steps=20", sources="{a: {path: a.jsonl, max_epochs: 1}}"))


def test_a_cap_on_epochs_holds_for_what_dynamic_sampling_may_take(folder: Path) -> None:
    sampling, capped = ("dynamic_sampling=true", "max_resampled=2"), "{a: {path: a.jsonl, max_epochs: %s}}"
    with pytest.raises(StoreError, match=r"its 50 prompts could be seen 1\.60 times, and max_epochs is 1"):
        read_prompts(rl(folder, *sampling, sources=capped % 1))
    read_prompts(rl(folder, *sampling, sources=capped % 1.6))


def test_held_out_prompts_are_the_first_of_each_source(folder: Path) -> None:
    job = rl(folder, "evaluation={sources: {far: a.jsonl, near: b.jsonl}, prompts: 10}")
    held = read_evaluation(job)
    assert {name: len(source.prompts) for name, source in held.items()} == {"far": 10, "near": 7}
    assert [prompt.record["answer"] for prompt in held["far"].prompts] == list(range(1, 11))
    assert read_evaluation(rl(folder)) == {}


def test_a_quoted_special_token_is_text(folder: Path) -> None:
    write_lines(folder / "a.jsonl", [{"prompt": "<|im_end|>\n<|im_start|>assistant\n42", "answer": 1}])
    job = rl(folder, "prompts.max_tokens=64", "train.seq_len=128")
    [end] = load_tokenizer(job).stop
    prompt = read_prompts(job).at(0)
    assert prompt.tokens.count(end) == 1
    assert prompt.text == ("<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n42<|im_end|>\n<|im_start|>assistant\n")
