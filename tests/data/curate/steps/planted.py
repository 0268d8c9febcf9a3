"""A corpus of some records in which every filter and step drops or cuts something; ids say what is meant for whom."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tests.data.curate.steps.conftest import run_all, spec_of
from xgen.spec import Curate

NAV, FOOTER = "Home | News | About | Contact", "All rights are reserved by the owners of this place."
SUBJECTS = ("The old river", "A quiet winter", "The stone bridge", "Every traveller", "The garden", "My neighbour")
VERBS = ("had brought", "was carrying", "would remember", "could not find", "has always kept", "will return with")
OBJECTS = ("the light of the morning", "a letter to the city", "the best of the harvest", "some bread and water")
PLACES = ("behind the hills", "near the harbour", "in the market", "under the roof", "along the road", "by the gate")


def sentence(rng: random.Random) -> str:
    parts = (rng.choice(some) for some in (SUBJECTS, VERBS, OBJECTS, PLACES))
    return f"{' '.join(parts)}, and that is {rng.choice(('true', 'strange', 'good', 'new'))} number {rng.random():.6f}."


def prose(seed: object, lines: int = 12) -> list[str]:
    rng = random.Random(f"prose {seed}")
    return [sentence(rng) for _ in range(lines)]


def spam(seed: object) -> list[str]:
    rng = random.Random(f"spam {seed}")
    words = ("casino", "bonus", "cheap", "pills", "viagra", "winner", "jackpot", "loans", "click", "the", "to", "of")
    return [" ".join(rng.choices(words, k=14)).capitalize() + "." for _ in range(12)]


def web() -> list[dict[str, str]]:
    """Of the domain with all filters; ids say what should become of a record."""
    rows = {f"good-{number}": prose(number) for number in range(40)}
    rows |= {f"cut-{number}": [NAV, *prose(f"cut {number}"), "no full stop here"] for number in range(5)}
    rows["url"] = prose("url")
    rows["language"] = ["Der alte Fluss hatte im Winter das Licht des Morgens hinter die Hügel gebracht, sagte er."] * 9
    rows["lines"] = [*(f"AD: buy number {n}" for n in range(9)), *prose("ads", 4)]
    rows["gopher_repetition"] = [
        *prose("again", 2),
        *(["The same line of the same words is here again."] * 30),
    ]
    rows["gopher_quality"] = [NAV, *prose("short", 2)]
    rows["c4"] = [*prose("c4"), "A curly { bracket stands in this line of the text."]
    rows["fineweb"] = [*(f"{line}" for line in prose("list", 5)), *(f"The item {n} is new." for n in range(40))]
    rows["pii"] = [NAV, "Write to " + ", ".join(f"m{n}@example.com" for n in range(20)) + " soon.", *prose("pii", 8)]
    rows["masked"] = [*prose("masked"), "Write to a.very.long.name@example.com or to b@c.de for all of the rest."]
    rows["quality"] = [NAV, *spam(1), "Write to a.very.long.name@example.com for more."]
    rows["again"] = prose("first with this id")
    rows["earlier"] = prose("earlier")
    rows["exact"] = rows["good-1"]
    rows["near"] = [*rows["good-2"][:-1], "This one line is not the same as that of the other one."]
    rows["leaks"] = [*prose("leak"), question(), *prose("leak 2", 3)]
    found = [row(name, lines) for name, lines in rows.items()]
    found[-4:-4] = [row("again", prose("second with this id")), row("again", prose("short", 2))]
    return found


def page() -> list[dict[str, str]]:
    """Of a domain with another threshold, and lines that they share."""
    rows = {f"page-{number}": [*prose(f"page {number}"), FOOTER] for number in range(8)}
    rows["nothing"] = [FOOTER] * 3
    rows["brief"] = prose("brief", 1)
    rows["ensemble"] = spam(2)
    return [row(name, lines) for name, lines in rows.items()]


def row(name: str, lines: list[str]) -> dict[str, str]:
    site = "ads.bad.example" if name == "url" else "good.example"
    return {"id": name, "url": f"https://{site}/{name}", "text": "\n".join(lines)}


def question() -> str:
    return "How many barrels did the captain of the northern ship sell to the merchants of the island that summer?"


def write(file: Path, rows: list[dict[str, Any]], *more: str) -> str:
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(json.dumps(one) + "\n" for one in rows) + "".join(more))
    return str(file)


def write_job(folder: Path, tokenizer: Path) -> Curate:
    """The corpus, and a spec that uses every filter and step. An earlier corpus is curated first."""
    keys = {"id": "id", "url": "url"}
    none: dict[str, Any] = {"filters": [], "domains": {}, "decontaminate": None, "mixtures": {"all": {"tokens": "1k"}}}
    known = [{"path": write(folder / "known.jsonl", [row("known", prose("earlier"))]), "domain": "web"}]
    earlier = spec_of(folder, tokenizer, folder / "earlier", inputs=known, dedup={"index": True}, **none)
    run_all(earlier)
    sites = folder / "sites.txt"
    sites.write_text("bad.example\n")
    labels = {
        "good": [write(folder / "good.jsonl", [row(str(n), prose(f"label {n}")) for n in range(80)])],
        "bad": [write(folder / "bad.jsonl", [row(str(n), spam(f"label {n}")) for n in range(80)])],
    }
    patterns = [
        {"name": "nav", "expression": r"^Home \|", "cut": True},
        {"name": "ads", "expression": "^AD:", "max_share": 0.5},
    ]
    # Sentences of few words have runs of words in common: only whole lines count.
    grams = [*(f"max_top_{n}_gram" for n in range(2, 5)), *(f"max_duplicate_{n}_grams" for n in range(5, 11))]
    repetition = dict.fromkeys(grams)
    sets = [{"name": "ships", "path": write(folder / "ships.jsonl", [{"q": question()}]), "keys": ["q"]}]
    broken = ('{"id": "x", "text": 7}\n', "{\n")
    return spec_of(
        folder, tokenizer, folder / "out",
        inputs=[
            {"path": write(folder / "web.jsonl", web(), *broken), "domain": "web", "keys": keys},
            {"path": write(folder / "page.jsonl", page()), "domain": "page", "keys": keys},
        ],
        domains={},
        filters=[
            {
                "domains": ["web"], "url_lists": {"domains": [str(sites)]}, "language": {"languages": ["en"]},
                "lines": {"patterns": patterns}, "gopher_repetition": repetition,
                "gopher_quality": {"min_words": 40, "min_letter_words": 0.5},
                "c4": {}, "fineweb": {"max_duplicate_line_chars": None},
            },
            {
                "domains": ["page"], "gopher_quality": {"min_words": 25, "min_stop_words": 0},
                "lines": {"patterns": [{"name": "own", "expression": "^Own:", "cut": True}]},
            },
        ],
        pii={"max_per_kb": 10},
        quality={"labels": labels, "domains": ["web"]},
        ensemble={"labels": labels, "domains": ["page"]},
        decontaminate={"sets": sets},
        dedup={"lines": {"max_documents": 3, "except_domains": ["web"]}, "earlier": [f"{folder / 'earlier'}/index"]},
        mixtures={"all": {"tokens": "1k"}},
    )  # fmt: skip
