"""Filters beside datatrove's: `python -m benchmarks.curation [--json] [--rounds N]`.

Speed: the same 3 MB of real text (documentation, modules, plays, descriptions, licences), from strings to decisions,
CPU time of one thread; rounds in turn. The chain is FineWeb's: Gopher repetition, Gopher quality, C4 with any ending of
a line, FineWeb. Agreement: the same documents, and as many that are broken on purpose, decided by both; each filter
alone, and words one by one. Languages: sentences that nobody trained on, of the 60 languages of which spaCy has
examples and the model a label. End to end: benchmarks/whole_curation.py. The peers and spaCy are those of the
environment of benchmarks.dedup.
"""

from __future__ import annotations

import argparse
import ast
import importlib.metadata
import json
import os
import random
import re
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import whole_curation
from benchmarks.common import ROOT, Figure, Result
from benchmarks.dedup import curation_peers
from benchmarks.mangled import mangle
from xgen.data.curate.filters.c4 import C4Filter
from xgen.data.curate.filters.chain import open_filters, run
from xgen.data.curate.filters.fineweb import FineWebFilter
from xgen.data.curate.filters.gopher import GopherQualityFilter
from xgen.data.curate.filters.language import LanguageFilter
from xgen.data.curate.filters.pii import PiiFilter
from xgen.data.curate.filters.repetition import GopherRepetitionFilter
from xgen.data.curate.filters.thresholds import C4, FINEWEB, Language
from xgen.data.curate.filters.trace import Batch, Filter
from xgen.data.curate.texts import Texts
from xgen.data.sources import tiny_sources

NUM_BYTES, WHOLE_BYTES = 3_000_000, 10_000_000
MAX_CHARS = 6_000  # of a document: longer ones are cut
FILTERS: dict[str, Filter] = {
    "gopher_repetition": GopherRepetitionFilter(),
    "gopher_quality": GopherQualityFilter(),
    "c4": C4Filter(),
    "c4_any_ending": C4Filter(C4(terminal_punctuation=False)),
    "fineweb": FineWebFilter(),
}
CHAIN = open_filters(FINEWEB)
GOAL_MB, GOAL_TIMES, GOAL_WHOLE_TIMES = 6.0, 20, 10


@dataclass(frozen=True)
class CurationResult(Result):
    """`equal`: documents that both keep or both drop, of `compared`, by filter. `told`: of languages."""

    compared: int
    kept: int
    equal: Mapping[str, int]
    told: Mapping[str, float]

    def print(self, as_json: bool) -> None:
        super().print(as_json)
        if not as_json:
            for name, count in self.equal.items():
                print(f"{name}: {count} of {self.compared} documents as datatrove")
            print(f"kept by the chain: {self.kept} of {self.compared} documents")
            for name, value in self.told.items():
                print(f"languages, {name}: {value:.4g}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curation", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    python = curation_peers()
    texts = real_texts()
    num_bytes = sum(len(text.encode()) for text in texts)
    rates: dict[str, list[float]] = defaultdict(list)
    others: dict[str, list[float]] = defaultdict(list)
    ours = _ours()
    for measure in ours.values():
        measure(texts[:2])  # compiles
    with tempfile.TemporaryDirectory(prefix="xgen-curation-") as folder:
        for _ in range(options.rounds):
            for name, measure in ours.items():
                began = time.process_time()
                measure(texts)
                rates[name].append(num_bytes / (time.process_time() - began) / 1e6)
            for name, seconds in ask_datatrove(python, "time", texts, Path(folder)).items():
                others[f"{name}, datatrove"].append(num_bytes / seconds / 1e6)
        whole = whole_curation.measure(python, real_texts(WHOLE_BYTES), options.rounds, Path(folder))
        rates["end to end"] = whole.pop("end to end")
        others |= whole
        texts += mangle(texts, random.Random(1))
        kept = int(run(CHAIN, Batch(Texts.of(texts))).kept.sum())
        equal = agreement(texts, ask_datatrove(python, "decide", texts, Path(folder)))
    figures = {name: Figure.of(values, "MB/s") for name, values in rates.items()}
    peers = {name: Figure.of(values, "MB/s") for name, values in others.items()}
    goals = {
        "chain": max(GOAL_MB, GOAL_TIMES * peers["chain, datatrove"].median),
        "end to end": GOAL_WHOLE_TIMES * peers["end to end, datatrove"].median,
    }
    CurationResult("curation", figures, peers, goals, len(texts), kept, equal, tell_languages(python)).print(
        options.json
    )


def _ours() -> dict[str, Callable[[list[str]], object]]:
    def alone(each: Filter) -> Callable[[list[str]], object]:
        return lambda texts: each.check(Batch(Texts.of(texts)))

    measures: dict[str, Callable[[list[str]], object]] = {"words": lambda texts: Batch(Texts.of(texts)).words}
    measures |= {name: alone(each) for name, each in FILTERS.items()}
    measures |= {"language": alone(LanguageFilter.open(Language())), "personal data": alone(PiiFilter())}
    return measures | {"chain": lambda texts: run(CHAIN, Batch(Texts.of(texts)))}


def agreement(texts: list[str], theirs: list[dict[str, Any]]) -> dict[str, int]:
    """By filter: documents that are kept by both or dropped by both. "texts": what C4 leaves, of those it keeps."""
    batch = Batch(Texts.of(texts))
    equal = dict.fromkeys(("words", *FILTERS, "chain", "texts of c4"), 0)
    for number, expected in enumerate(theirs):
        low, high = batch.words.offsets[number], batch.words.offsets[number + 1]
        raw = batch.texts.data
        spans = zip(batch.words.start[low:high].tolist(), batch.words.num_bytes[low:high].tolist(), strict=True)
        equal["words"] += [raw[at : at + size].tobytes().decode() for at, size in spans] == expected["words"]
    for name, each in FILTERS.items():
        kept = each.check(batch).kept
        equal[name] = sum(bool(kept[number]) == (not expected[name]) for number, expected in enumerate(theirs))
    passage = run(CHAIN, batch)
    equal["chain"] = sum(bool(passage.kept[number]) == (not row["chain"]) for number, row in enumerate(theirs))
    changed = FILTERS["c4_any_ending"].check(batch).changed
    assert changed is not None
    for number, row in enumerate(theirs):
        dropped = bool(row["c4_any_ending"])
        equal["texts of c4"] += dropped or changed.texts[number] == row["c4_any_ending_text"]
    return equal


def tell_languages(python: Path) -> dict[str, float]:
    """Single sentences: the share that is right, the share whose score is 0.65 or more, and of these what is right."""
    each = LanguageFilter.open(Language())
    right = sure = sure_and_right = total = languages = 0
    for file in sorted(python.parent.parent.glob("lib/python*/site-packages/spacy/lang/*/examples.py")):
        code = {"nb": "no"}.get(file.parent.name, file.parent.name)
        if code not in each.identifier.labels:
            continue
        values = [node.value for node in ast.parse(file.read_text()).body if isinstance(node, ast.Assign)]
        sentences = [str(sentence) for value in values for sentence in ast.literal_eval(value)]
        trace = each.check(Batch(Texts.of(sentences)))
        same, high = trace.labels["language"] == code, trace.measures["score"] >= 0.65
        right, sure, sure_and_right = right + same.sum(), sure + high.sum(), sure_and_right + (same & high).sum()
        total, languages = total + len(sentences), languages + 1
    return {
        "number": languages,
        "sentences": total,
        "right": right / total,
        "sure": sure / total,
        "right of the sure": sure_and_right / sure,
    }


def ask_datatrove(python: Path, what: str, texts: list[str], folder: Path) -> Any:
    asked, answer = folder / "texts.json", folder / "answer.json"
    asked.write_text(json.dumps(texts))
    command = [str(python), str(ROOT / "benchmarks/peers/filters.py"), what, str(asked), str(answer)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, cwd=folder, env=env)
    if done.returncode:
        sys.exit(f"datatrove {what} failed:\n{done.stderr[-2000:]}")
    return json.loads(answer.read_text())


def real_texts(num_bytes: int = NUM_BYTES) -> list[str]:
    """Documents of every kind in turn: those of the tiny corpus, and descriptions and licences of packages."""
    kinds = [_source(number) for number in range(len(tiny_sources()))] + [_descriptions(), _licences()]
    texts: list[str] = []
    size = 0
    for row in range(max(map(len, kinds))):
        for kind in kinds:
            if row < len(kind) and size < num_bytes:
                texts.append(kind[row])
                size += len(kind[row].encode())
    return texts


def _source(number: int) -> list[str]:
    found = []
    for unit in tiny_sources()[number].units():
        try:
            found += [text[:MAX_CHARS] for _, text in unit.read() if text]
        except (ValueError, SyntaxError):
            continue
    random.Random(number).shuffle(found)
    return found


def _descriptions() -> list[str]:
    """What packages say of themselves, on the web too: the text after the headers of their METADATA."""
    found = []
    for file in sorted(Path(sysconfig.get_path("purelib")).glob("*.dist-info/METADATA")):
        body = importlib.metadata.PathDistribution(file.parent).metadata.get_payload()
        if isinstance(body, str) and body.strip():
            found.append(body[:MAX_CHARS])
    return found


def _licences() -> list[str]:
    """Prose without markup, of which much passes all filters: paragraphs on one line, as the web has them."""
    files = sorted(Path(sysconfig.get_path("purelib")).glob("*.dist-info/**/*LICEN[CS]E*"))
    texts = dict.fromkeys(file.read_text(errors="ignore") for file in files if file.is_file())
    found = []
    for text in texts:
        lines = [re.sub(r"\s+", " ", part).strip() for part in re.split(r"\n\s*\n", text)]
        whole = "\n".join(line for line in lines if len(line) > 40)
        found += [whole[at : at + MAX_CHARS] for at in range(0, len(whole), MAX_CHARS)]
    random.Random(0).shuffle(found)
    return found


if __name__ == "__main__":
    main()
