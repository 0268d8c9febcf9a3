"""Prompts in a chat template: its tokens are special ones, what a sample quotes is text, and no length is over."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers.processors import TemplateProcessing

from tests.evals.suites.conftest import SPECIAL
from tests.evals.suites.readers import ScriptedSubject, job, perfect, ruler
from xgen.data.chat.template import CHATML, ChatTemplate
from xgen.data.errors import StoreError
from xgen.evals.protocol import Prompt, Record
from xgen.evals.ruler import FILL, TASKS
from xgen.evals.suites import suites_of

PLAIN = "{{ bos_token }}[INST] {{ messages[0]['content'] | trim }} [/INST]"
THINKING = CHATML.replace("assistant\\n' -}}", "assistant\\n<think>\\n\\n</think>\\n\\n' -}}")
SAYS_MUCH = "{{ '<|im_start|>' }}" + "Answer in one word. " * 100 + "{{ messages[0]['content'] }}<|im_end|>"
NO_QUESTION = "{{ raise_exception('the first message must be of the system') }}"


def template(source: str) -> ChatTemplate:
    return ChatTemplate(source, "chat.jinja", {"bos_token": "<s>"}, ["<|endoftext|>", *SPECIAL])


def asked(
    subject: ScriptedSubject, cache: Path, checkpoints: str | dict[str, str] = "tiny", **suites: Any
) -> tuple[list[Record], Sequence[Prompt]]:
    records = [
        record
        for suite in suites_of(job(checkpoints, **suites), subject, cache)
        for record in suite.score(subject, suite.items(), lambda: False)
    ]
    return records, subject.scripted.prompts


@pytest.mark.parametrize(
    ("source", "tasks"),
    [
        (CHATML, ["niah_multiquery", "vt", "cwe", "fwe", "qa_2"]),
        (PLAIN, ["niah_single_2", "qa_1"]),
        (THINKING, ["vt"]),
        (SAYS_MUCH, ["niah_multikey_2"]),
    ],
)
def test_no_length_is_over_with_a_template_and_all_are_full(
    folder: Path, tokenizer: tokenizers.Tokenizer, cache: Path, source: str, tasks: list[str]
) -> None:
    subject = ScriptedSubject(tokenizer, perfect, template(source))
    needles, recall = {"lengths": [2048], "depths": 2, "samples": 1}, {"lengths": [8192], "samples": 5}
    of = ruler(folder, tasks=tasks, lengths=[4096], samples=2)
    records, prompts = asked(subject, cache, **of, needles=needles, recall=recall)
    assert len(records) == 2 * len(tasks) + 2 + 5
    by_tokens = {len(prompt.ids): prompt for prompt in prompts}
    for record in records:
        room = by_tokens[record.tokens].max_tokens
        assert record.length * FILL <= record.tokens + room <= record.length, record
        if record.task in TASKS:
            assert room == TASKS[record.task].answer_tokens
    assert all(record.score == 1 for record in records)


def test_the_template_is_around_the_question_and_the_answer_begins_with_its_prefix(
    tokenizer: tokenizers.Tokenizer, cache: Path
) -> None:
    subject = ScriptedSubject(tokenizer, perfect, template(CHATML))
    _, [prompt, *_] = asked(subject, cache, recall={"lengths": [1024], "samples": 1})
    text = tokenizer.decode(list(prompt.ids), skip_special_tokens=False)
    assert text.startswith("<|im_start|>user\nExtract the value corresponding to the specified key")
    assert text.endswith("<|im_end|>\n<|im_start|>assistant\nCorresponding value:")
    begin, end = (tokenizer.token_to_id(token) or 0 for token in SPECIAL[:2])
    assert list(prompt.ids).count(begin) == 2 and list(prompt.ids).count(end) == 1


@pytest.mark.parametrize("source", [CHATML, None])
def test_special_tokens_that_a_haystack_quotes_are_text(
    folder: Path, tokenizer: tokenizers.Tokenizer, cache: Path, tmp_path: Path, source: str | None
) -> None:
    haystack = tmp_path / "haystack.txt"
    haystack.write_text((folder / "haystack.txt").read_text(encoding="utf-8")[:20_000].replace(". ", ". <|im_end|> "))
    subject = ScriptedSubject(tokenizer, perfect, template(source) if source else None)
    needles = {"lengths": [4096], "depths": 2, "samples": 2, "haystack": str(haystack)}
    records, prompts = asked(subject, cache, needles=needles)
    end = tokenizer.token_to_id("<|im_end|>") or 0
    for record, prompt in zip(records, prompts, strict=True):
        assert list(prompt.ids).count(end) == (1 if source else 0)
        assert tokenizer.decode(list(prompt.ids), skip_special_tokens=False).count("<|im_end|>") > 20
        assert record.length * FILL <= record.tokens + prompt.max_tokens <= record.length


def test_a_template_that_takes_no_question_is_refused(tokenizer: tokenizers.Tokenizer, cache: Path) -> None:
    subject = ScriptedSubject(tokenizer, perfect, template(NO_QUESTION))
    with pytest.raises(StoreError, match=r"chat\.jinja: cannot put .* must be of the system; write template: none"):
        suites_of(job(recall={"lengths": [1024]}), subject, cache)


def test_a_folder_of_hugging_face_gets_what_its_tokenizer_puts_before_a_text(
    tokenizer: tokenizers.Tokenizer, cache: Path
) -> None:
    tokenizer = tokenizers.Tokenizer.from_str(tokenizer.to_str())
    begin = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = TemplateProcessing("<s> $A <|im_end|>", special_tokens=[
        ("<s>", begin), ("<|im_end|>", tokenizer.token_to_id("<|im_end|>"))
    ])  # fmt: skip
    needles = {"needles": {"lengths": [512], "depths": 2, "samples": 1}}
    of_run, of_folder, in_chat = (
        asked(ScriptedSubject(tokenizer, perfect, chat), cache, checkpoints, **needles)[1][0].ids
        for checkpoints, chat in (("tiny", None), ({"hf": "folder"}, None), ({"hf": "folder"}, template(PLAIN)))
    )
    assert begin not in of_run and list(of_folder) == [begin, *of_run]
    assert in_chat[0] == begin and list(in_chat).count(begin) == 1


def test_documents_of_a_folder_begin_as_its_tokenizer_says_whatever_its_template(
    tokenizer: tokenizers.Tokenizer, tmp_path: Path
) -> None:
    tokenizer = tokenizers.Tokenizer.from_str(tokenizer.to_str())
    tokenizer.post_processor = TemplateProcessing("<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>") or 0)])
    held_out = tmp_path / "held-out.jsonl"
    held_out.write_text(json.dumps({"text": "The end of one is the beginning of another. " * 40}) + "\n")
    of = {"perplexity": {"one": {"path": str(held_out), "length": 100}}}
    plain, in_chat, of_run = (
        asked(ScriptedSubject(tokenizer, perfect, chat), tmp_path, checkpoints, **of)[0][0].digest
        for checkpoints, chat in (({"hf": "folder"}, None), ({"hf": "folder"}, template(CHATML)), ("tiny", None))
    )
    assert plain == in_chat != of_run
