"""The raw corpus on disk: `raw/DOMAIN/NN.jsonl.zst`, `raw/broken/`, seeds for a quality model, evaluation sets, and
`truth.jsonl`, which says what was planted.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import zstandard

from xgen.data.curate.tiny.packages import Text, texts_of
from xgen.data.curate.tiny.plant import leak, near, passage, same
from xgen.data.curate.tiny.spam import spam
from xgen.data.progress import Progress, silent
from xgen.data.staging import exclusive, staged

VERSION = 1  # raised when the same installation gives another corpus
TRUTH_FILE, LICENCES_FILE, MARK_FILE = "truth.jsonl", "LICENSES.md", "corpus.json"
# Of the text: by domain.
SHARES = {"code": 0.46, "native": 0.26, "reference": 0.22, "literature": 0.04, "web": 0.02}
PROSE = ("reference", "literature", "web")
_FILE_BYTES = 6 << 20  # of text
_SIZES = (2, 2, 2, 2, 3, 3, 5, 8, 12, 120)  # of clusters of planted copies
_BINS = ((0.95, 1.0), (0.9, 0.95), (0.85, 0.9), (0.8, 0.85))
_HELD_OUT = 25  # one of so many documents gives evaluation items and is not in the corpus
_COPIED = 60  # one of so many documents has planted copies; as many have a near copy
_LONG = 6000  # characters: of shorter documents no evaluation items are made
_SMALL = 20_000  # characters: of a longer document no copies are planted


@dataclass(frozen=True)
class Truth:
    """A planted document: `kind` is exact, near, spam, leak or id; `of` the document or the evaluation item."""

    id: str
    domain: str
    kind: str
    of: str = ""
    similarity: float = 1.0


def write_corpus(out: Path, max_bytes: int, seed: int = 0, progress: Progress = silent) -> None:
    """Write the corpus of about `max_bytes` of text into `out`, which appears whole; does nothing where it is there."""
    mark = {"version": VERSION, "bytes": max_bytes, "seed": seed}
    with exclusive(out, 600):
        if (out / MARK_FILE).is_file() and json.loads((out / MARK_FILE).read_bytes()) == mark:
            return
        with staged(out) as folder:
            _write(folder, max_bytes, seed, progress)
            (folder / MARK_FILE).write_text(json.dumps(mark) + "\n")


def read_truth(out: Path) -> list[Truth]:
    return [Truth(**json.loads(line)) for line in (out / TRUTH_FILE).read_text(encoding="utf-8").splitlines()]


def _write(folder: Path, max_bytes: int, seed: int, progress: Progress) -> None:
    truth: list[Truth] = []
    licences: Counter[tuple[str, str, str]] = Counter()
    prose: dict[str, list[Text]] = {}
    for done, (domain, share) in enumerate(SHARES.items()):
        progress("domains", done, len(SHARES))
        rng = random.Random(f"{seed} {domain}")
        texts, held = _take(domain, int(max_bytes * share))
        if domain in PROSE:
            prose[domain] = texts
        items = _items(domain, held, rng)
        _write_lines(folder / "evaluation" / f"{domain}.jsonl", items)
        records = [*_with_leaks(domain, texts, items, truth, rng)]
        records += _copies(domain, texts, truth, rng)
        if domain == "web":
            records += _spam(prose, truth, seed, max(70, max_bytes // 200_000))
        for text in records:
            licences[(domain, text.source, text.licence)] += 1
        _write_records(folder / "raw" / domain, records)
    _write_seeds(folder / "labels", prose, seed, max(140, max_bytes // 200_000))
    _write_broken(folder / "raw" / "broken", truth)
    _write_lines(folder / TRUTH_FILE, [asdict(row) for row in truth])
    rows = [f"| {' | '.join(key)} | {number} |" for key, number in sorted(licences.items())]
    head = ["# Licences of the texts", "", "| domain | source | licence | documents |", "|---|---|---|---|"]
    (folder / LICENCES_FILE).write_text("\n".join([*head, *rows]) + "\n", encoding="utf-8")


def _take(domain: str, max_bytes: int) -> tuple[list[Text], list[Text]]:
    """Documents up to so many bytes, and those held out for evaluation items."""
    texts: list[Text] = []
    held: list[Text] = []
    size, seen = 0, set[str]()
    for text in texts_of(domain):
        if text.id in seen or len(text.text) < 200:
            continue
        seen.add(text.id)
        if _digest(text.id) % _HELD_OUT == 0:
            held.append(text)
            continue
        texts.append(text)
        size += len(text.text.encode())
        if size >= max_bytes:
            break
    return texts, held


def _items(domain: str, held: Sequence[Text], rng: random.Random) -> list[dict[str, str]]:
    items: list[dict[str, str]] = []
    for text in held:
        if len(text.text) < _LONG:
            continue  # made by a machine, and much the same as others, where it is code
        own = text.text[_LONG // 2 :]  # a licence at the beginning is in many files
        for number in range(2):
            if question := passage(own, rng.randint(25, 60), rng):
                items.append(
                    {"id": f"{domain}-{len(items)}", "question": question, "answer": f"{text.source} {number}"}
                )
    return items


def _with_leaks(
    domain: str, texts: Sequence[Text], items: Sequence[dict[str, str]], truth: list[Truth], rng: random.Random
) -> Iterator[Text]:
    """The texts; every other item stands in one of them."""
    chosen = rng.sample(range(len(texts)), min(len(items[::2]), len(texts) // 4))
    of = dict(zip(chosen, items[::2], strict=False))
    for number, text in enumerate(texts):
        item = of.get(number)
        if item is None:
            yield text
            continue
        truth.append(Truth(text.id, domain, "leak", item["id"]))
        yield Text(text.id, leak(text.text, item["question"], rng), text.source, text.licence)


def _copies(domain: str, texts: Sequence[Text], truth: list[Truth], rng: random.Random) -> Iterator[Text]:
    leaks = {row.id for row in truth if row.kind == "leak"}
    vocabulary = sorted({word for text in texts[:50] for word in text.text.split() if word.isalnum()})
    small = [text for text in texts if len(text.text) < _SMALL and text.id not in leaks]
    chosen = rng.sample(small, 2 * min(len(small) // 2, max(10, len(small) // _COPIED)))
    for number, text in enumerate(chosen[::2]):
        size = _SIZES[number % len(_SIZES)]
        for copy in range(1, size if len(text.text) < _SMALL // 4 else min(size, 3)):
            name = f"{text.id}#copy-{copy}"
            truth.append(Truth(name, domain, "exact", text.id))
            yield Text(name, same(text.text, rng), text.source, text.licence)
    for number, text in enumerate(chosen[1::2]):
        if len(text.text.split()) < 120:
            continue
        edited, similarity = near(text.text, *_BINS[number % len(_BINS)], vocabulary, rng)
        truth.append(Truth(f"{text.id}#near", domain, "near", text.id, round(similarity, 4)))
        yield Text(f"{text.id}#near", edited, text.source, text.licence)


def _spam(prose: dict[str, list[Text]], truth: list[Truth], seed: int, count: int) -> Iterator[Text]:
    """Made of words that the seeds do not have (half 1)."""
    real = _half(prose, 1)
    for number, (kind, text) in enumerate(spam(count, 1, real, seed)):
        truth.append(Truth(f"spam/{number}", "web", "spam", kind))
        yield Text(f"spam/{number}", text, "crawl", "made")


def _write_seeds(folder: Path, prose: dict[str, list[Text]], seed: int, count: int) -> None:
    """Documents with labels for a quality model: of half 0."""
    good = [{"text": section} for text in _half(prose, 0) for section in _sections(text)]
    bad = [{"text": text} for _, text in spam(max(count, len(good)), 0, _half(prose, 0), seed)]
    for name, rows in (("good", good), ("bad", bad)):
        _write_lines(folder / f"{name}.jsonl.zst", rows)


def is_seed(name: str) -> bool:
    """Whether the real document of this id gives seeds: half of them."""
    return _digest(f"half {name}") % 2 == 0


def _half(prose: dict[str, list[Text]], half: int) -> list[str]:
    return [text.text for texts in prose.values() for text in texts if is_seed(text.id) == (half == 0)]


def _sections(text: str) -> Iterator[str]:
    """Up to three sections of whole lines, about as long as spam is."""
    lines = text.splitlines(keepends=True)
    section, found = "", 0
    for line in lines:
        section += line
        if len(section) > 1500:
            yield section[:4000]
            section, found = "", found + 1
            if found == 3:
                return
    if len(section) > 400 or not found:
        yield section


def _write_records(folder: Path, records: Sequence[Text]) -> None:
    """In the order of a hash, in files of some megabytes."""
    folder.mkdir(parents=True)
    ordered = sorted(records, key=lambda text: hashlib.blake2b(text.id.encode()).digest())
    waiting: list[dict[str, str]] = []
    size = number = 0
    for text in ordered:
        waiting.append(asdict(text))
        size += len(text.text)
        if size >= _FILE_BYTES:
            _write_lines(folder / f"{number:02}.jsonl.zst", waiting)
            waiting, size, number = [], 0, number + 1
    if waiting:
        _write_lines(folder / f"{number:02}.jsonl.zst", waiting)


def _write_lines(file: Path, rows: Iterable[dict[str, object]] | Iterable[dict[str, str]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if file.suffix == ".zst":
        content = zstandard.ZstdCompressor(level=3, write_checksum=True).compress(content)
    file.write_bytes(content)


def _write_broken(folder: Path, truth: list[Truth]) -> None:
    """One file for each way in which input is broken."""
    folder.mkdir(parents=True)
    compressor = zstandard.ZstdCompressor(level=3, write_checksum=True)
    good = "".join(json.dumps(_ordinary(number)) + "\n" for number in range(200)).encode()
    (folder / "cut-off.jsonl.zst").write_bytes(compressor.compress(good)[:-200])
    (folder / "json.jsonl").write_bytes(
        b'{"id": "j1", "text": "this line ends too soon\n'
        b'["a list"]\n'
        b'{"id": "j2"}\n'
        b'{"id": "j3", "text": 7}\n'
        b'{"id": "j4", "text": "no UTF-8: \xff\xfe"}\n'
        b'{"id": "j5", "text": "half of a pair: \\ud800"}\n'
    )
    long = json.dumps(
        {"id": "long", "text": "all work and no play " * 5_000_000, "source": "broken", "licence": "made"}
    )
    (folder / "long.jsonl.zst").write_bytes(compressor.compress(long.encode() + b"\n" + good))
    (folder / "ids.jsonl").write_text(
        "".join(json.dumps(_ordinary(number % 5, f"same-{number % 5}")) + "\n" for number in range(15))
    )
    truth += [Truth(f"same-{number}", "web", "id") for number in range(5)]


def _ordinary(number: int, name: str = "") -> dict[str, str]:
    words = random.Random(number).choices(
        ("wind", "river", "stone", "light", "road", "winter", "the", "and", "of"), k=90
    )
    text = f"Page {number}. " + " ".join(words) + "."
    return {"id": name or f"page-{number}", "text": text, "source": "broken", "licence": "made"}


def _digest(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")
