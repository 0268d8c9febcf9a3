"""The tasks as published: how many needles, at which depths, asked how."""

from __future__ import annotations

import math
import re
from collections import Counter as Tally
from collections.abc import Callable, Sequence

import pytest

from xgen.evals.ruler import Sample

WORD, NUMBER = r"[\w -]+-[\w' -]+", r"[1-9]\d{6}"
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
# Task: needles with a value that is asked for, all needles (None: as many as fit), key, value, plural.
NEEDLES: dict[str, tuple[int, int | None, str, str, bool]] = {
    "niah_single_1": (1, 1, WORD, NUMBER, False),
    "niah_single_2": (1, 1, WORD, NUMBER, False),
    "niah_single_3": (1, 1, WORD, UUID, False),
    "niah_multikey_1": (1, 4, WORD, NUMBER, False),
    "niah_multikey_2": (1, None, WORD, NUMBER, False),
    "niah_multikey_3": (1, None, UUID, UUID, False),
    "niah_multivalue": (4, 4, WORD, NUMBER, True),
    "niah_multiquery": (4, 4, WORD, NUMBER, True),
}


Samples = Callable[[str], list[Sample]]


def depth(sample: Sample, output: str) -> float:
    """Where among the sentences between the instruction and the question: 0 to 1."""
    text = sample.input[sample.input.index("\n") : sample.input.rindex("\n")]
    sentences = [
        match.end() for match in re.finditer(r"""[.!?]["'\u201d\u2019)\]]*\s(?=["'\u201c\u2018(\[]?[A-Z0-9])""", text)
    ]
    where = text.index(f"is: {output}.")
    return sum(end < where for end in sentences) / (len(sentences) + 1)


def uniform(values: Sequence[float], bins: int = 8) -> bool:
    """Whether the chi-square of `values` over 0 to 1 is below its 0.1% bound (Wilson and Hilferty)."""
    counts = Tally(min(bins - 1, int(value * bins)) for value in values)
    expected = len(values) / bins
    chi = sum((counts[at] - expected) ** 2 / expected for at in range(bins))
    free = bins - 1
    return chi < free * (1 - 2 / (9 * free) + 3.09 * math.sqrt(2 / (9 * free))) ** 3


@pytest.mark.parametrize("task", NEEDLES)
def test_needles_are_as_many_and_as_published(samples: Samples, task: str) -> None:
    answers, needles, key, value, plural = NEEDLES[task]
    kind = "uuids" if value == UUID else "numbers"
    for sample in samples(task)[:40]:
        found = re.findall(rf"One of the special magic {kind} for ({key}) is: ({value})\.", sample.input)
        assert len(found) == needles if needles else len(found) > 40
        assert len(sample.outputs) == answers
        named = "numbers" if plural else kind[:-1]
        asked = sample.input.rsplit("\n", 1)[1]
        query = re.fullmatch(rf"What (?:is|are all) the special magic {named} for (.+) mentioned in .+\?", asked)
        assert query and ("are all" in asked) == plural
        keys = re.split(r", and |, ", query[1])
        assert [v for k in keys for f, v in found if f == k] == list(sample.outputs) or set(sample.outputs) == {
            v for f, v in found if f in keys
        }
        verb = "are" if plural else "is"
        prefix = f" The special magic {named} for {query[1]} mentioned in the provided text {verb}"
        assert sample.answer_prefix == prefix
        opening = "Some special magic numbers are" if plural else f"A special magic {named} is"
        assert sample.input.startswith(f"{opening} hidden within the following text. Make sure to memorize it.")


@pytest.mark.parametrize("task", NEEDLES)
def test_needles_lie_at_every_depth_alike(samples: Samples, task: str) -> None:
    assert uniform([depth(sample, sample.outputs[0]) for sample in samples(task)])


def test_a_chain_has_five_variables_in_order_after_a_solved_example(samples: Samples) -> None:
    for sample in samples("vt")[:40]:
        example, text = sample.input.split("\n\nMemorize", 1)
        assert len(re.findall(r"^VAR [A-Z]{3} = (?:\d{5}|VAR [A-Z]{3} )$", example, re.M)) == 5
        first, *hops = re.findall(r"^VAR ([A-Z]{5}) = (?:(\d{5})|VAR ([A-Z]{5}) )$", text, re.M)
        assert [first[0], *(hop[0] for hop in hops)] == list(sample.outputs)
        assert [hop[2] for hop in hops] == list(sample.outputs[:-1])
        assert f"Find all variables that are assigned the value {first[1]} in the text above." in text
        assert sample.answer_prefix.endswith(f"5 variables are assigned the value {first[1]}, they are: ")


def test_common_words_appear_thirty_times_and_others_three_times(samples: Samples) -> None:
    for sample in samples("cwe")[:20]:
        example, text = (part.split("\nQuestion")[0] for part in sample.input.split("Memorize the ones that")[1:])
        listed = re.findall(r"\d+\. (.+?)(?= \d+\. |$)", text.split("\n", 1)[1])
        tally = Tally(listed)
        assert {word for word, times in tally.items() if times == 30} == set(sample.outputs)
        assert sorted(set(tally.values())) == [3, 30] and len(sample.outputs) == 10
        assert Tally(Tally(re.findall(r"\d+\. (.+?)(?= \d+\. |$)", example.split("\n", 1)[1])).values()) == {
            10: 10,
            3: 30,
        }


def test_coded_words_fall_with_the_square_of_their_rank(samples: Samples) -> None:
    for sample in samples("fwe")[:20]:
        words = sample.input.split("coded words. ", 1)[1].split("\n")[0].split(" ")
        ranked = Tally(words).most_common(6)
        assert ranked[0][0] == "..." and tuple(word for word, _ in ranked[1:4]) == sample.outputs
        times = [count for _, count in ranked]
        assert all(times[0] / (rank + 1) ** 2 == pytest.approx(times[rank], abs=1.5) for rank in range(6))


@pytest.mark.parametrize("task", ["qa_1", "qa_2"])
def test_documents_are_numbered_and_the_answer_lies_in_any_of_them(samples: Samples, task: str) -> None:
    places = []
    for sample in samples(task):
        documents = re.findall(r"^Document (\d+):$", sample.input, re.M)
        assert documents == [str(i) for i in range(1, len(documents) + 1)]
        where = sample.input.index(f" is {sample.outputs[0]}.")
        places.append((len(re.findall(r"^Document \d+:$", sample.input[:where], re.M)) - 0.5) / len(documents))
        assert sample.answer_prefix == " Answer:"
    assert uniform(places)
