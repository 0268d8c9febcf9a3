"""What readers by rule score, against what the depths, counts and numbers of the published tasks say that they must.

Bounds are four standard errors of that theory: of the sum over samples of the share that is expected of each.
"""

from __future__ import annotations

import json
import math
import random
import re
import statistics
from collections import Counter as Tally
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.evals.ruler.conftest import SAMPLES, hotpot, squad
from tests.evals.suites.readers import perfect
from xgen.evals.ruler import LENGTHS, TASKS, Counter, Haystack, Questions, Ruler, Sample, score

Samples = Callable[[str], list[Sample]]
Expected = list[tuple[float, float]]  # mean and variance of the score of each sample

NUMBER, UUID = r"[1-9]\d{6}", r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
NEEDLE = re.compile(rf"One of the special magic \w+ for [\w' -]+ is: ({UUID}|{NUMBER})\.")
SENTENCE = re.compile(r"""[.!?]["'\u201d\u2019)\]]*(?= ["'\u201c\u2018(\[]?[A-Z0-9])""")
LISTED = re.compile(r"\d+\. (.+?)(?= \d+\. |$)")
NIAH = [task for task in TASKS if task.startswith("niah")]
ESSAYS = ("niah_single_2", "niah_single_3", "niah_multikey_1", "niah_multivalue", "niah_multiquery")


@pytest.fixture(scope="module")
def large(folder: Path) -> Ruler:
    """With question sets that fill 256k tokens."""
    (folder / "squad_large.json").write_text(json.dumps(squad(300, 20)))
    (folder / "hotpot_large.json").write_text(json.dumps(hotpot(600)))
    sets = {"qa_1": Questions.read(folder / "squad_large.json"), "qa_2": Questions.read(folder / "hotpot_large.json")}
    counter = Counter.load(folder / "tokenizer.json", folder / "cache")
    return Ruler(counter, Haystack.read(folder / "haystack.txt"), sets)


@pytest.mark.parametrize("length", LENGTHS)
def test_who_reads_all_of_the_text_scores_1_in_every_task(large: Ruler, length: int) -> None:
    for task in TASKS:
        for recipe in large.plan(task, length, 3 if length < 65536 else 1, seed=5):
            sample = large.render(recipe)
            assert score(task, perfect(sample.prompt), sample.outputs) == 1, f"{task} {recipe.index}"


@pytest.mark.parametrize("task", TASKS)
def test_who_knows_the_form_of_an_answer_but_no_text_scores_0(samples: Samples, task: str) -> None:
    of = random.Random("guesses")
    guesses = [f"{of.randint(10**6, 10**7 - 1)} {''.join(of.choices('abcdefghij', k=6))}" for _ in range(SAMPLES)]
    scores = [score(task, guess, one.outputs) for guess, one in zip(guesses, samples(task), strict=True)]
    assert statistics.fmean(scores) < 0.002  # of a number of seven digits: 1e-7


def within(scores: Sequence[float], expected: Expected) -> bool:
    means, variances = zip(*expected, strict=True)
    return abs(sum(scores) - sum(means)) <= 4 * math.sqrt(sum(variances)) + 1e-9


def of_one(chance: float) -> tuple[float, float]:
    return chance, chance * (1 - chance)


# Readers of the whole text that do not look at the question: one of what could be asked for, at random.


@pytest.mark.parametrize("task", [task for task in TASKS if task not in ("cwe", "fwe")])
def test_who_answers_at_random_with_what_the_text_has_is_right_as_often_as_there_are_others(
    samples: Samples, task: str
) -> None:
    of = random.Random(1)
    scores, expected = [], []
    for sample in samples(task):
        values = candidates(task, sample.input)
        share = len(sample.outputs) if TASKS[task].kind != "qa" else 1
        scores.append(score(task, of.choice(values), sample.outputs))
        right = sum(value in sample.outputs for value in values) / len(values)
        expected.append((right / share, right * (1 - right) / share**2))
    assert within(scores, expected)
    single = {"niah_single_1": 1, "niah_multikey_1": 1 / 4, "niah_multivalue": 1 / 4, "niah_multiquery": 1 / 4}
    if task in single:
        assert statistics.fmean(mean for mean, _ in expected) == single[task]
    if task in ("niah_multikey_2", "niah_multikey_3", "qa_1", "qa_2"):
        assert statistics.fmean(mean for mean, _ in expected) < 0.1


def candidates(task: str, text: str) -> list[str]:
    if task.startswith("niah"):
        return NEEDLE.findall(text)
    if task == "vt":
        return re.findall(r"^VAR ([A-Z]{5}) = ", text, re.M)
    return re.findall(r"The code of station \d+ is (\d+)\.", text)


@pytest.mark.parametrize(("task", "number"), [("cwe", 10), ("fwe", 3)])
def test_who_names_words_at_random_finds_as_many_as_there_are(samples: Samples, task: str, number: int) -> None:
    of = random.Random(2)
    scores, expected = [], []
    for sample in samples(task):
        words = sorted(set(counted(task, sample.input)) - {"..."})
        scores.append(score(task, ", ".join(of.sample(words, number)), sample.outputs))
        hits = [sum(output.lower() in word.lower() for word in words) for output in sample.outputs]
        chances = [1 - math.comb(len(words) - hit, number) / math.comb(len(words), number) for hit in hits]
        variance = sum(chance * (1 - chance) for chance in chances) / number**2
        expected.append((statistics.fmean(chances), variance))
    assert within(scores, expected)


def counted(task: str, text: str) -> list[str]:
    """The words of the list that is asked about."""
    if task == "cwe":
        return LISTED.findall(text.rsplit("\nQuestion", 1)[0].rsplit("\n", 1)[1])
    return text.split("coded words. ", 1)[1].split("\n", maxsplit=1)[0].split(" ")


# Readers of the end of the text only.


@pytest.mark.parametrize("task", NIAH)
@pytest.mark.parametrize("share", [0.1, 0.3, 0.7])
def test_who_reads_the_end_finds_the_needles_that_lie_there(samples: Samples, task: str, share: float) -> None:
    scores, expected = [], []
    for sample in samples(task):
        begin, end = sample.input.index("\n") + 1, sample.input.rindex("\n")
        text, cut = sample.input[begin:end], int((1 - share) * (end - begin))
        scores.append(score(task, " ".join(NEEDLE.findall(text[cut:])), sample.outputs))
        places = list(spots(text) if task in ESSAYS else lines(text))
        mean, variance = of_one(sum(place >= cut for place in places) / len(places))
        expected.append((mean, variance / len(sample.outputs)))  # less: no two needles lie at one place
    assert within(scores, expected)
    if task not in ESSAYS:  # whose sentences differ in length
        assert statistics.fmean(mean for mean, _ in expected) == pytest.approx(share, abs=2 / len(places))


def lines(text: str) -> Iterator[int]:
    """Where a needle can begin: at any line but the last."""
    return (match.start() for match in re.finditer(r"^.*\n", text, re.M))


def spots(text: str) -> Iterator[int]:
    """Where a needle can begin among the sentences of an essay: at 40 depths."""
    needles = list(NEEDLE.finditer(text))
    bare = NEEDLE.sub("", text)
    ends = [0, *(match.end() for match in SENTENCE.finditer(re.sub(" +", " ", bare))), len(bare)]
    stretch = len(text) / len(bare)
    assert 1 <= len(needles) <= 4
    for depth in np.round(np.linspace(0, 100, 40)).astype(int):
        yield int(stretch * ends[min(len(ends) - 1, (len(ends) - 1) * int(depth) // 100)])


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_who_reads_the_end_knows_the_variables_that_are_named_there(samples: Samples, share: float) -> None:
    named, traced, expected, chains = [], [], [], []
    for sample in samples("vt"):
        text = sample.input.rsplit("\n\n", 1)[1].split("\nQuestion")[0]
        cut = int((1 - share) * len(text))
        seen = re.findall(r"VAR ([A-Z]{5}) = (\w+)", text[cut:])
        named.append(score("vt", " ".join(name for name, _ in seen), sample.outputs))
        whole = bool(seen) and seen[0][1].isdigit()  # who sees no value cannot say what has it
        traced.append(score("vt", " ".join(name for name, _ in seen) if whole else "", sample.outputs))
        places = list(lines(text))
        visible, chance = sum(place >= cut for place in places), sum(place >= cut for place in places) / len(places)
        expected.append((chance, chance * (1 - chance) / 5))
        chains.append(of_one(math.comb(visible, 5) / math.comb(len(places), 5)))
    assert within(named, expected) and within(traced, chains)
    assert statistics.fmean(mean for mean, _ in chains) == pytest.approx(share**5, abs=0.03)


@pytest.mark.parametrize(("task", "number", "skipped"), [("cwe", 10, 0), ("fwe", 3, 1)])
@pytest.mark.parametrize("share", [0.02, 0.05, 0.3])
def test_who_counts_the_end_finds_what_is_common_there(
    samples: Samples, task: str, number: int, skipped: int, share: float
) -> None:
    rng = np.random.default_rng(3)

    def common(words: Sequence[int]) -> list[int]:
        """The most frequent, ties at random."""
        tally = Tally(words)
        ranked = sorted(tally, key=lambda word: (-tally[word], rng.random()))
        return ranked[skipped : skipped + number]

    def theory(counts: Sequence[int], visible: int) -> tuple[float, float]:
        """Of words in random order: those of rank `skipped` to `skipped + number` are asked for."""
        order = np.repeat(np.arange(len(counts)), counts)
        asked = set(range(skipped, skipped + number))
        read = (rng.choice(order, visible, replace=False).tolist() for _ in range(1000))
        drawn = [len(asked & set(common(words))) / number for words in read]
        return float(np.mean(drawn)), float(np.var(drawn) * (1 + SAMPLES / 1000))

    texts = sorted((counted(task, sample.input) for sample in samples(task)), key=len)
    middle = Tally(texts[len(texts) // 2])  # texts differ by some rare words: one theory is that of all
    visible = int(share * middle.total())
    scores = []
    for words in texts:
        ranked = [word for word, _ in Tally(words).most_common()]
        numbers = {word: i for i, word in enumerate(ranked)}
        read = common([numbers[word] for word in words[-visible:]])
        scores.append(len(set(read) & set(range(skipped, skipped + number))) / number)
    expected = theory([count for _, count in middle.most_common()], visible)
    assert within(scores, [expected] * len(scores))


@pytest.mark.parametrize("task", ["qa_1", "qa_2"])
@pytest.mark.parametrize("share", [0.2, 0.6])
def test_who_reads_the_last_documents_knows_their_answers(samples: Samples, task: str, share: float) -> None:
    scores, expected = [], []
    for sample in samples(task):
        end = sample.input.rindex("\n\nAnswer the question")
        begin = sample.input.index("\n\nDocument 1:")
        cut = begin + int((1 - share) * (end - begin))
        facts = [match.start() for match in re.finditer(r"The code of station \d+ is \d+\.", sample.input)]
        known = " ".join(re.findall(r"The code of station \d+ is (\d+)\.", sample.input[cut:end]))
        scores.append(score(task, known, sample.outputs))
        expected.append(of_one(sum(fact >= cut for fact in facts) / len(facts)))
    assert within(scores, expected)
    assert statistics.fmean(mean for mean, _ in expected) == pytest.approx(share, abs=0.04)
