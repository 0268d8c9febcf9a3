"""RULER's samples beside lm-eval's generator: `python -m benchmarks.ruler [--json] [--rounds N] [--count N]`.

Plans 13 tasks at 7 lengths (4k to 256k) with 500 samples each after the first tokenization: time on the clock and of
the CPU. Then the text at 4k, and lm-eval's own on the same tokenizer and haystack in an environment of its own
(.cache/bench): samples a second on the six tasks that need no download, how full the lengths are, and whether both draw
from one distribution, on all 13: needles, question and answer by form, depth of the answers by the two-sample
Kolmogorov-Smirnov test at 0.1%, counts by rank in `fwe`, the documents of `qa`. Haystack and tokenizer are of Python's
own documentation (PSF licence); the question sets are made up.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

from benchmarks.common import ROOT, Figure, Result, peer_python
from benchmarks.ruler_alike import ARTICLE, Sample, distance, same_counts, same_form
from xgen.data.tokenizer import Tokenizer
from xgen.evals.ruler import FILL, LENGTHS, TASKS, Counter, Haystack, Questions, Ruler

PACKAGES = ("lm_eval==0.4.13", "wonderwords==3.0.1", "nltk", "scipy", "transformers")
OFFLINE = ("niah_single_1", "niah_multikey_2", "niah_multikey_3", "vt", "cwe", "fwe")
LENGTH, SAMPLES, SECONDS, TIMES = 4096, 500, 60.0, 10.0


@dataclass(frozen=True)
class Filled:
    """Of one task at 4k: the emptiest and the fullest of samples as a share of the length, ours and lm-eval's."""

    lowest: float
    highest: float
    peer_lowest: float
    peer_highest: float


@dataclass(frozen=True)
class RulerResult(Result):
    """`distance`: between depths of answers, with its bound at 0.1%; `forms`, `counts`: tasks that differ in them."""

    filled: Mapping[str, Filled]
    lowest: float  # of all tasks and lengths
    over: int
    num_counted: int
    distance: Mapping[str, tuple[float, float]]
    forms: Sequence[str]
    counts: Sequence[str]

    @property
    def met(self) -> dict[str, bool]:
        return super().met | {
            "every length filled to 99%, none over": self.lowest >= FILL and not self.over,
            "depths as lm-eval's": all(distance <= bound for distance, bound in self.distance.values()),
            "forms as lm-eval's": not self.forms,
            "words and documents as lm-eval's": not self.counts,
        }

    def print(self, as_json: bool) -> None:
        super().print(as_json)
        if as_json:
            return
        print(f"{self.num_counted} samples of all tasks and lengths: the emptiest {self.lowest:.2%}, over {self.over}")
        for task, of in self.filled.items():
            share = f"{of.lowest:.1%} to {of.highest:.1%}; lm-eval {of.peer_lowest:.1%} to {of.peer_highest:.1%}"
            print(f"{task:<16} full {share}; depths " + "{:.2f} apart, bound {:.2f}".format(*self.distance[task]))
        for goal in list(self.met)[len(self.goals) :]:
            print(f"{goal}: {'met' if self.met[goal] else 'MISSED'}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ruler", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=200, help="samples of each task that are made as text")
    arguments = parser.parse_args()
    python = peer_python("ruler", PACKAGES, "about 400 MB and two minutes")
    with tempfile.TemporaryDirectory() as folder:
        _measure(Path(folder), python, arguments.rounds, arguments.count).print(arguments.json)


def _measure(folder: Path, python: Path, rounds: int, count: int) -> RulerResult:
    ruler, counter = _inputs(folder)
    for task in TASKS:
        ruler.plan(task, LENGTH, 1, seed=0)  # the first tokenization
    seconds: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        began, cpu = time.perf_counter(), time.process_time()
        for task in TASKS:
            for length in LENGTHS:
                ruler.plan(task, length, SAMPLES, seed=42)
        seconds["plan 13x7x500"].append(time.perf_counter() - began)
        seconds["plan 13x7x500, CPU"].append(time.process_time() - cpu)
    rates: dict[str, list[float]] = defaultdict(list)
    peer_rates: dict[str, list[float]] = defaultdict(list)
    samples, peers = _ours(ruler, count)[0], _theirs(python, folder, count, list(TASKS))[0]
    for _ in range(rounds):
        taken, peer_taken = _ours(ruler, count)[1], _theirs(python, folder, count, OFFLINE)[1]
        for task in OFFLINE:
            rates[f"{task}, text"].append(count / taken[task])
            peer_rates[f"{task}, lm-eval"].append(count / peer_taken[task])
    figures = {name: Figure.of(values) for name, values in seconds.items()}
    figures |= {name: Figure.of(values, "samples/s") for name, values in rates.items()}
    figures["counted too, all tasks"] = Figure.of([_counted(ruler, count // 4) for _ in range(rounds)], "samples/s")
    peer_figures = {name: Figure.of(values, "samples/s") for name, values in peer_rates.items()}
    goals = {f"{task}, text": TIMES * peer_figures[f"{task}, lm-eval"].median for task in OFFLINE}
    shares = {
        (task, length): [
            (len(ruler.fit(recipe).ids) + TASKS[task].answer_tokens) / length
            for recipe in ruler.plan(task, length, 2, seed=7)
        ]
        for task in TASKS
        for length in LENGTHS
    }
    counted = [share for of in shares.values() for share in of]
    return RulerResult(
        "ruler", figures, peer_figures, goals | {"plan 13x7x500": SECONDS, "plan 13x7x500, CPU": 2 * SECONDS},
        {task: _filled(counter, task, samples[task], peers[task]) for task in peers},
        min(counted), sum(share > 1 for share in counted), len(counted),
        {task: distance(samples[task], peers[task]) for task in peers},
        [task for task in peers if not same_form(samples[task], peers[task])],
        [task for task in peers if not same_counts(task, samples[task], peers[task])],
    )  # fmt: skip


def _ours(ruler: Ruler, count: int) -> tuple[dict[str, list[Sample]], dict[str, float]]:
    """Samples, and seconds that their text took."""
    samples: dict[str, list[Sample]] = {}
    seconds = {}
    for task in TASKS:
        recipes = ruler.plan(task, LENGTH, count, seed=42)
        began = time.perf_counter()
        made = [ruler.render(recipe) for recipe in recipes]
        seconds[task] = time.perf_counter() - began
        samples[task] = [
            Sample(task=task, input=one.input, answer_prefix=one.answer_prefix, outputs=list(one.outputs))
            for one in made
        ]
    return samples, seconds


def _counted(ruler: Ruler, count: int) -> float:
    """Samples a second from nothing: planned, made, and all their tokens counted."""
    began = time.perf_counter()
    for task in TASKS:
        for recipe in ruler.plan(task, LENGTH, count, seed=43):
            ruler.fit(recipe)
    return len(TASKS) * count / (time.perf_counter() - began)


def _theirs(
    python: Path, folder: Path, count: int, tasks: Sequence[str]
) -> tuple[dict[str, list[Sample]], dict[str, float]]:
    out = folder / "peer.jsonl"
    command: list[str | Path] = [
        python,
        ROOT / "benchmarks/peers/ruler.py",
        folder,
        folder / "haystack.txt",
        str(LENGTH),
        str(count),
        out,
        *tasks,
    ]
    env = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=1800, env=env)
    samples: dict[str, list[Sample]] = defaultdict(list)
    for line in out.read_text().splitlines():
        sample = json.loads(line)
        samples[sample["task"]].append(sample)
    seconds: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return dict(samples), seconds


def _filled(counter: Counter, task: str, ours: Sequence[Sample], theirs: Sequence[Sample]) -> Filled:
    def shares(samples: Sequence[Sample]) -> list[float]:
        tokens = counter.count([f"{sample['input']}{sample['answer_prefix']}" for sample in samples])
        return [float(n + TASKS[task].answer_tokens) / LENGTH for n in tokens]

    mine, peer = shares(ours), shares(theirs)
    return Filled(min(mine), max(mine), min(peer), max(peer))


def _inputs(folder: Path) -> tuple[Ruler, Counter]:
    text = "\n".join(topics.values())
    (folder / "haystack.txt").write_text(text, encoding="utf-8")
    Tokenizer.train(text.split("\n\n"), 8000).save(folder / "tokenizer.json")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    words = text.split()

    def document(number: int) -> tuple[str, str]:
        of = random.Random(number)
        code = str(of.randint(10**6, 10**7 - 1))
        return f"The code of {number} is {code}. " + " ".join(of.choices(words, k=of.randint(8, 110))), code

    def paragraph(number: int) -> dict[str, object]:
        context, code = document(number)
        asked = {"question": f"Code of {number}?", "answers": [{"text": code}], "is_impossible": False}
        return {"context": context, "qas": [asked]}

    squad = {"data": [{"paragraphs": [paragraph(ARTICLE * a + i) for i in range(ARTICLE)]} for a in range(120)]}
    hotpot = [
        {
            "question": f"Code of {10 * i}?", "answer": document(10 * i)[1],
            "context": [[f"{10 * i + j}", [document(10 * i + j)[0]]] for j in range(10)],
        }
        for i in range(600)
    ]  # fmt: skip
    (folder / "qa_1.json").write_text(json.dumps(squad))
    (folder / "qa_2.json").write_text(json.dumps(hotpot))
    counter = Counter.load(folder, folder / "cache")
    sets = {name: Questions.read(folder / f"{name}.json") for name in ("qa_1", "qa_2")}
    return Ruler(counter, Haystack.read(folder / "haystack.txt"), sets), counter


if __name__ == "__main__":
    main()
