"""Whether two generators of RULER draw from one distribution, task by task: form, depths, counts and documents."""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from typing import TypedDict

import numpy as np

ARTICLE = 25  # paragraphs of an article of the made-up question set; question n is about paragraph n
_SENTENCE = re.compile(r"(?<=[.!?]) (?=[A-Z0-9])|\n")
_DOCUMENT = re.compile(r"^Document \d+:\n(?:\d+\n)?The code of (\d+) is ", re.M)


class Sample(TypedDict):
    """One of either generator's, as its process wrote it."""

    task: str
    input: str
    answer_prefix: str
    outputs: list[str]


def distance(ours: Sequence[Sample], theirs: Sequence[Sample]) -> tuple[float, float]:
    """Kolmogorov and Smirnov's between the depths of all answers, and its bound at 0.1% for so many samples."""
    mine, peer = ([depth for sample in samples for depth in _depths(sample)] for samples in (ours, theirs))
    at = np.sort(np.concatenate((mine, peer)))
    shares = [np.searchsorted(np.sort(of), at, side="right") / len(of) for of in (mine, peer)]
    return float(np.abs(shares[0] - shares[1]).max()), 1.95 * math.sqrt(1 / len(ours) + 1 / len(theirs))


def same_form(ours: Sequence[Sample], theirs: Sequence[Sample]) -> bool:
    return _form(ours) == _form(theirs)


def same_counts(task: str, ours: Sequence[Sample], theirs: Sequence[Sample]) -> bool:
    """fwe: how often each rank of words appears. qa: which documents, and how many for so much text."""
    if task == "fwe":
        return all(map(_is_zipf, (*ours, *theirs)))
    if task.startswith("qa"):
        lengths = [np.mean([len(sample["input"]) / len(_documents(sample)) for sample in of]) for of in (ours, theirs)]
        return abs(float(lengths[0] / lengths[1]) - 1) < 0.05 and all(map(_has_its_documents, (*ours, *theirs)))
    return True


def _is_zipf(sample: Sample) -> bool:
    """Whether one number of words explains the count of every rank: N over rank squared over zeta(2), rounded down."""
    ranked = Counter(_words(sample)).most_common()
    zeta = math.pi**2 / 6
    low = max(count * rank**2 * zeta for rank, (_, count) in enumerate(ranked, 1))
    high = min((count + 1) * rank**2 * zeta for rank, (_, count) in enumerate(ranked, 1))
    return low <= high and ranked[0][0] == "..." and {word for word, _ in ranked[1:4]} == set(sample["outputs"])


def _has_its_documents(sample: Sample) -> bool:
    """qa_1: the question's own, and as many of its article as there is room for before any other; qa_2: its ten."""
    asked, found = int(re.findall(r"Code of (\d+)\?", sample["input"])[-1]), _documents(sample)
    of, least = (ARTICLE, min(ARTICLE, len(found))) if sample["task"] == "qa_1" else (10, 10)
    return asked in found and len(set(found)) == len(found) and sum(n // of == asked // of for n in found) == least


def _documents(sample: Sample) -> list[int]:
    """Their numbers in the set, in the order of the text."""
    return [int(number) for number in _DOCUMENT.findall(sample["input"])]


def _words(sample: Sample) -> list[str]:
    return sample["input"].split("coded words. ", 1)[1].split("\n", maxsplit=1)[0].split(" ")


def _depths(sample: Sample) -> list[float]:
    """Of each answer, as a share of the text between instruction and question, after a solved example.

    Of needles it is a share of its sentences and lines, in which depths are drawn: as characters it would depend on
    where in a text the long sentences are, and a text that is filled more is another one.
    """
    if sample["task"] == "fwe":
        words = _words(sample)
        return [place / len(words) for place, word in enumerate(words) if word in sample["outputs"]]
    if sample["task"].startswith("qa"):
        documents = _documents(sample)
        asked = int(re.findall(r"Code of (\d+)\?", sample["input"])[-1])
        return [(documents.index(asked) + 0.5) / len(documents)]
    text = sample["input"]
    begin, end = max(0, text.rfind("\n\nMemorize"), text.rfind("Below is a")), text.rindex("\n")
    if sample["task"].startswith("niah"):
        ends = [match.start() for match in _SENTENCE.finditer(text, text.index("\n"), end)]
        return [bisect_left(ends, text.index(output)) / len(ends) for output in sample["outputs"]]
    return [(text.index(output, begin) - begin) / (end - begin) for output in sample["outputs"]]


def _form(samples: Sequence[Sample]) -> set[tuple[object, ...]]:
    """Of each sample: needles (up to 5), answers, opening, question and answer prefix with names and numbers masked."""

    def masked(text: str) -> str:
        text = text.replace("assgined", "assigned").strip()
        text = re.sub(r"for .+ mentioned", "for K mentioned", text)
        return re.sub(r"\d{5}|(?<=Code of )\d+", "N", text)

    return {
        (
            min(5, text.count("One of the special magic")),
            len(sample["outputs"]),
            frozenset(map(_kind, sample["outputs"])),
            masked(text.split("\n")[0])[:60],
            masked(text[text.rindex("\n") :]),
            masked(sample["answer_prefix"]),
        )
        for sample in samples
        for text in [sample["input"]]
    }


def _kind(answer: str) -> str:
    """Seven digits, a UUID, five capitals, or a word."""
    kinds = {"number": r"\d{7}", "uuid": r"[0-9a-f]{8}(-[0-9a-f]{4}){4}[0-9a-f]{8}", "variable": r"[A-Z]{5}"}
    return next((kind for kind, form in kinds.items() if re.fullmatch(form, answer)), "word")
