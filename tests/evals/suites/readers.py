"""A subject whose model answers by a rule from the text of the prompt, and what such rules can be."""

from __future__ import annotations

import random
import re
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tokenizers
from numpy.typing import NDArray

from tests.evals.made import evaluation
from xgen.data.chat.template import ChatTemplate
from xgen.evals.protocol import Answer, Model, Prompt
from xgen.spec import Evaluate

Reader = Callable[[str], str]
AT_ONCE = 4
PAIR = re.compile(r'"(.+?)": "(.+?)"')


def job(checkpoints: str | dict[str, str] = "tiny", **suites: Any) -> Evaluate:
    return evaluation(**{"checkpoints": checkpoints, "ruler": None, **suites})


def ruler(folder: Path, **keys: Any) -> dict[str, Any]:
    """Of a spec, with the inputs of the folder."""
    inputs = {"haystack": "haystack.txt", "qa_1": "squad.json", "qa_2": "hotpot.json"}
    return {"ruler": {**{key: str(folder / name) for key, name in inputs.items()}, **keys}}


@dataclass
class ScriptedModel:
    """Takes some prompts at a time, as an engine does, and ends the last of them first."""

    tokenizer: tokenizers.Tokenizer
    reader: Reader
    prompts: list[Prompt] = field(default_factory=list)  # that were taken

    def generate(self, prompts: Iterable[Prompt]) -> Iterator[tuple[int, Answer]]:
        numbered = enumerate(prompts)
        while taken := list(islice(numbered, AT_ONCE)):
            for number, prompt in reversed(taken):
                self.prompts.append(prompt)
                text = self.reader(self.tokenizer.decode(list(prompt.ids), skip_special_tokens=False))
                ids = self.tokenizer.encode(text, add_special_tokens=False).ids
                yield number, Answer(tuple(ids[: prompt.max_tokens]), 0.5)

    def losses(self, sequences: Iterable[Sequence[int]]) -> Iterator[NDArray[np.float32]]:
        """A sixty-fourth of the token before."""
        for ids in sequences:
            yield np.asarray(ids[:-1], dtype=np.float32) / np.float32(64)


@dataclass
class ScriptedSubject:
    tokenizer: tokenizers.Tokenizer
    reader: Reader = lambda _: ""
    template: ChatTemplate | None = None
    stop: tuple[int, ...] = (0,)
    name: str = "tiny@8"
    step: int = 8

    def __post_init__(self) -> None:
        self.scripted = ScriptedModel(self.tokenizer, self.reader)

    def model(self) -> Model:
        return self.scripted

    def export(self, dtype: Literal["bfloat16", "float32"]) -> Path:
        raise AssertionError(f"none of these suites reads an export, in {dtype} or otherwise")


def perfect(text: str) -> str:
    """Solves every task by its text."""
    if "JSON data:" in text:
        key = re.findall(r'Key: "(.+?)"', text)[-1]
        return f" {dict(PAIR.findall(text))[key]}"
    if "numbered list of words" in text:
        listed = re.findall(r"\d+\. (.+?)(?= \d+\. |\n)", text[text.rindex("Memorize the ones") :])
        return " ".join(word for word, _ in Tally(listed).most_common(10))
    if "coded word" in text:
        words = text.split("coded words. ", 1)[1].split("\n", maxsplit=1)[0].split(" ")
        return " ".join(word for word, _ in Tally(words).most_common(4)[1:])
    if "chain(s) of variable assignment" in text:
        return _chain(text[text.rindex("\n\nMemorize") :])
    if "Question: " in text:
        [station] = re.findall(r"Question: .* station (\d+)\?", text)
        [code, *_] = re.findall(rf"The code of station {station} is (\d+)\.", text)
        return str(code)
    return _needles(text, text)


def recent(text: str) -> str:
    """Knows the needles and pairs that stand in the last third of the text."""
    if "JSON data:" in text:
        key = re.findall(r'Key: "(.+?)"', text)[-1]
        pairs: list[tuple[str, str]] = PAIR.findall(text)
        return dict(pairs[-(len(pairs) // 3) :]).get(key, "unknown")
    begin, end = text.index("\n"), text.rindex("\n")
    return _needles(text[end - (end - begin) // 3 : end], text)


def guessing(_: str) -> str:
    return f" {random.Random('guess').randint(10**6, 10**7 - 1)}"


def _needles(known: str, text: str) -> str:
    query = re.findall(r"special magic \w+ for (.+?) mentioned in the provided text\?", text)[-1]
    keys = re.split(r", and |, ", query)
    return " ".join(value for key, value in re.findall(r"for ([\w' -]+) is: ([\w-]+)\.", known) if key in keys)


def _chain(text: str) -> str:
    [value] = re.findall(r"assigned the value (\d+) in the text above", text)
    known = [value]
    for name, of in re.findall(r"^VAR ([A-Z]+) = (?:VAR )?(\w+)", text, re.M):
        if of in known:
            known.append(name)
    return " ".join(known[1:])
