from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from xgen.data.tokenizer import Tokenizer
from xgen.evals.ruler import Counter, Haystack, Questions, Ruler, Sample

SAMPLES = 240
TEXT = "\n".join(topics.values())  # Python's language reference (PSF licence), which comes with Python


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tokenizer.json, haystack.txt, squad.json, hotpot.json."""
    folder = tmp_path_factory.mktemp("ruler")
    (folder / "haystack.txt").write_text(TEXT, encoding="utf-8")
    Tokenizer.train(TEXT[:150_000].split("\n\n"), 4000).save(folder / "tokenizer.json")
    (folder / "squad.json").write_text(json.dumps(squad(30, 20)))
    (folder / "hotpot.json").write_text(json.dumps(hotpot(60)))
    return folder


@pytest.fixture(scope="session")
def ruler(folder: Path) -> Ruler:
    return made(folder, folder / "tokenizer.json")


@pytest.fixture(scope="session")
def samples(ruler: Ruler) -> Callable[[str], list[Sample]]:
    """Of a task at 4096 tokens."""
    made: dict[str, list[Sample]] = {}

    def of(task: str) -> list[Sample]:
        if task not in made:
            made[task] = [ruler.render(recipe) for recipe in ruler.plan(task, 4096, SAMPLES, seed=11)]
        return made[task]

    return of


def made(folder: Path, tokenizer: Path) -> Ruler:
    sets = {"qa_1": Questions.read(folder / "squad.json"), "qa_2": Questions.read(folder / "hotpot.json")}
    return Ruler(Counter.load(tokenizer, folder / "cache"), Haystack.read(folder / "haystack.txt"), sets)


def squad(articles: int, paragraphs: int) -> dict[str, object]:
    """A question set as SQuAD's, of stations and their codes."""

    def paragraph(article: int, i: int) -> dict[str, object]:
        context, code = _station(article * paragraphs + i)
        asked = {"question": f"What is the code of station {article * paragraphs + i}?", "answers": [{"text": code}]}
        return {"context": context, "qas": [asked, {"question": "Why?", "answers": [], "is_impossible": True}]}

    return {"data": [{"paragraphs": [paragraph(a, i) for i in range(paragraphs)]} for a in range(articles)]}


def hotpot(questions: int) -> list[dict[str, object]]:
    """A question set as HotpotQA's."""
    return [
        {
            "question": f"Which code has station {10 * i}?",
            "answer": _station(10 * i)[1],
            "context": [[f"Station {10 * i + j}", [_station(10 * i + j)[0]]] for j in range(10)],
        }
        for i in range(questions)
    ]


def _station(number: int) -> tuple[str, str]:
    of = random.Random(number)
    code = str(of.randint(10**6, 10**7 - 1))
    return f"The code of station {number} is {code}. " + " ".join(
        of.choices(TEXT[:20_000].split(), k=of.randint(8, 90))
    ), code
