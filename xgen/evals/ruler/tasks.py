"""The 13 tasks of RULER: names, templates, needles and answer room as NVIDIA publishes them (arXiv 2404.06654).

Templates are those of NVIDIA/RULER's `constants.py` (Apache-2.0, Copyright (c) 2024 NVIDIA CORPORATION).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["niah", "vt", "cwe", "fwe", "qa", "kv"]
LENGTHS = (4096, 8192, 16384, 32768, 65536, 131072, 262144)  # tokens
NOISE = ("The grass is green.", "The sky is blue.", "The sun is yellow.", "Here we go.", "There and back again.")
NEEDLE = "One of the special magic {values} for {key} is: {value}."

_MANY = (
    "Some special magic {values} are hidden within the following text. Make sure to memorize it. I will quiz you about"
    " the {values} afterwards.\n{context}\nWhat are all the special magic {values} for {query} mentioned in the"
    " provided text?"
)
_ONE = (
    "A special magic {values} is hidden within the following text. Make sure to memorize it. I will quiz you about the"
    " {values} afterwards.\n{context}\nWhat is the special magic {values} for {query} mentioned in the provided text?"
)
_VT = (
    "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n{context}\nQuestion: Find"
    " all variables that are assigned the value {query} in the text above."
)
# The first release wrote "assgined"; so does lm-eval.
_VT_ANSWER = (
    " Answer: According to the chain(s) of variable assignment in the text above, {num_v} variables are assigned the"
    " value {query}, they are: "
)
_CWE = (
    "Below is a numbered list of words. In these words, some appear more often than others. Memorize the ones that"
    " appear most often.\n{context}\nQuestion: What are the 10 most common words in the above list?"
)
_FWE = (
    "Read the following coded text and track the frequency of each coded word. Find the three most frequently appeared"
    " coded words. {context}\nQuestion: Do not provide any explanation. Please ignore the dots '....'. What are the"
    " three most frequently appeared words in the above coded text?"
)
_FWE_ANSWER = " Answer: According to the coded text above, the three most frequently appeared words are:"
_QA = (
    "Answer the question based on the given documents. Only give me the answer and do not output any other words.\n\n"
    "The following are given documents.\n\n{context}\n\nAnswer the question based on the given documents. Only give me"
    " the answer and do not output any other words.\n\nQuestion: {query}"
)


@dataclass(frozen=True)
class Task:
    """One task: its texts, and the tokens that its answer may take."""

    name: str
    kind: Kind
    template: str
    answer_prefix: str
    answer_tokens: int


@dataclass(frozen=True)
class NeedleTask(Task):
    """What is hidden in which haystack, and how many of it."""

    haystack: Literal["noise", "needles", "essay"]
    keys: Literal["words", "uuids"]
    values: Literal["numbers", "uuids"]
    num_keys: int
    num_values: int
    num_queries: int

    @property
    def num_needles(self) -> int:
        return self.num_keys * self.num_values


def _niah(
    name: str,
    haystack: Literal["noise", "needles", "essay"],
    keys: Literal["words", "uuids"] = "words",
    values: Literal["numbers", "uuids"] = "numbers",
    num_keys: int = 1,
    num_values: int = 1,
    num_queries: int = 1,
) -> NeedleTask:
    several = num_values * num_queries > 1
    prefix = f" The special magic {{values}} for {{query}} mentioned in the provided text {'are' if several else 'is'}"
    needles = (haystack, keys, values, num_keys, num_values, num_queries)
    return NeedleTask(name, "niah", _MANY if several else _ONE, prefix, 128, *needles)


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        _niah("niah_single_1", "noise"),
        _niah("niah_single_2", "essay"),
        _niah("niah_single_3", "essay", values="uuids"),
        _niah("niah_multikey_1", "essay", num_keys=4),
        _niah("niah_multikey_2", "needles"),
        _niah("niah_multikey_3", "needles", keys="uuids", values="uuids"),
        _niah("niah_multivalue", "essay", num_values=4),
        _niah("niah_multiquery", "essay", num_keys=4, num_queries=4),
        Task("vt", "vt", _VT, _VT_ANSWER, 30),
        Task("cwe", "cwe", _CWE, " Answer: The top 10 words that appear most often in the list are:", 120),
        Task("fwe", "fwe", _FWE, _FWE_ANSWER, 50),
        Task("qa_1", "qa", _QA, " Answer:", 32),
        Task("qa_2", "qa", _QA, " Answer:", 32),
    )
}
