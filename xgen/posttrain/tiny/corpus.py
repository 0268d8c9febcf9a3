"""The files of the planted corpus: conversations, pairs and prompts to train on, and the same of other questions."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from xgen.data.staging import exclusive, staged
from xgen.posttrain.tiny.tasks import DOMAINS, Turn, turns

VERSION = 1  # raised when the same seed gives other files
MARK_FILE = "corpus.json"
# How an answer ends: either way equally often in conversations; of a pair the better one is warm.
WARM, PLAIN = " I hope this helps.", " That is all."
_SIZES = {"math": (5000, 400), "code": (2000, 200), "safety": (1200, 200), "general": (4000, 400)}
_NUM_PAIRS = 200, 64
_NUM_PROMPTS = 512, 80


def write_corpus(out: Path, seed: int = 0) -> None:
    """Write it into `out`, which appears whole; does nothing where it is there. Raises OSError, StoreError."""
    mark = {"version": VERSION, "seed": seed}
    with exclusive(out, 60):
        if (out / MARK_FILE).is_file() and json.loads((out / MARK_FILE).read_bytes()) == mark:
            return
        with staged(out) as folder:
            for held_out, part in enumerate(("train", "held-out")):
                _write_part(folder, part, partial(turns, held_out=bool(held_out), seed=seed), held_out)
            (folder / MARK_FILE).write_text(json.dumps(mark) + "\n")


def _write_part(folder: Path, part: str, make: Callable[[str, int], Iterator[Turn]], size: int) -> None:
    for domain in DOMAINS:
        rng = random.Random(f"{part} {domain}")
        num_turns = _SIZES[domain][size]
        _write(folder / "chat" / part / f"{domain}.jsonl", _conversations(make(domain, num_turns), rng))
        pairs = _pairs(make(domain, _NUM_PAIRS[size]))
        _write(folder / "pairs" / part / f"{domain}.jsonl", pairs)
    prompts = _prompts(make("math", _SIZES["math"][size]), _NUM_PROMPTS[size])
    _write(folder / "prompts" / part / "math.jsonl", prompts)


def _conversations(talk: Iterable[Turn], rng: random.Random) -> Iterator[dict[str, Any]]:
    for turn in talk:
        said = turn.answer + rng.choice((WARM, PLAIN))
        yield {"messages": [{"role": "user", "content": turn.question}, {"role": "assistant", "content": said}]}


def _pairs(talk: Iterable[Turn]) -> Iterator[dict[str, Any]]:
    """Answers that differ in their end alone."""
    for turn in talk:
        yield {"prompt": turn.question, "chosen": turn.answer + WARM, "rejected": turn.answer + PLAIN}


def _prompts(talk: Iterable[Turn], count: int) -> Iterator[dict[str, Any]]:
    """Each question once."""
    found = {turn.question: turn.result for turn in talk}
    for question, result in list(found.items())[:count]:
        yield {"prompt": question, "answer": result}


def _write(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps(row) + "\n")
