"""Reading samples beside other loaders: `python -m benchmarks.loader [--json] [--rounds N]`.

Every loader reads the same tokens (33 million, real text), windows of 2,048, batches of 8, shuffled, one process,
no workers; rounds in turn. The peers (NumPy as the floor, torchdata, litdata, MosaicML streaming, HF datasets) run in
an environment that this makes in .cache/bench. "packed" is what none of them does: a mixture exact to the token,
whole documents best-fit, labels, positions, also with the proof of what was consumed. "resume" is the time to the
first batch at a sample far on: ours at 10^9 of an index of 2 trillion tokens (its files are sparse); theirs at 10^7
(NumPy, torchdata, MosaicML), or at 12,000 of the 16,000 they hold (litdata, datasets). Also counts what is padded,
lost or cut at 8k; and the building of a store, in text per second of CPU time, beside `tokenizers` alone.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.common import ROOT, Figure, Result, peer_python
from xgen.data import Batch, PackedSamples, PlainSamples, TokenStore, batch_digest, make_mixture
from xgen.data.documents import read_documents
from xgen.data.encode import Encoder, choose_engine
from xgen.data.readers import Defaults, Keys, read_unit
from xgen.data.store import FileMeta, PartMeta, StoreMeta
from xgen.data.tokenizer import Tokenizer
from xgen.data.units import plan_units
from xgen.data.writer import write_unit
from xgen.spec import Share

SEQ_LEN, BATCH = 2048, 8
TOKENS = 20_000_000  # a round
PEERS = ("numpy", "torchdata", "litdata", "mosaic", "datasets")
PACKAGES = ("litdata==0.2.76", "mosaicml-streaming==0.13.0", "torchdata==0.11.0", "torchvision")
SHARES = {"code": Share(weight=0.5), "literature": Share(weight=0.3), "reference": Share(weight=0.2)}
RESUME_AT, PEERS_RESUME_AT = 10**9, 10**7
GOALS = {"packed": 20.0, "resume at 10^9": 1.0, "store building, a core": 10.0}
_SYNTHETIC_PARTS, _PART_TOKENS, _PART_DOCUMENTS = 2000, 1 << 30, 1 << 20


@dataclass(frozen=True)
class LoaderResult(Result):
    """`facts` are counts, not times."""

    facts: Mapping[str, float]

    def print(self, as_json: bool) -> None:
        super().print(as_json)
        if not as_json:
            for name, value in self.facts.items():
                print(f"{name}: {value:,.6g}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loader", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-peers", action="store_true")
    options = parser.parse_args()
    peers = () if options.no_peers else PEERS
    python = peer_python("loaders", PACKAGES, "some 90 s", shared=True) if peers else Path()
    with tempfile.TemporaryDirectory(prefix="xgen-loader-") as scratch:
        folder = Path(scratch)
        store = _write_store(folder)
        synthetic = _write_synthetic(folder / "synthetic")
        for peer in peers:
            _peer(python, peer, "prepare", folder, 0)
        rates: dict[str, list[float]] = defaultdict(list)
        resumes: dict[str, list[float]] = defaultdict(list)
        ours = _ours(store)
        for _ in range(options.rounds):
            for name, read in ours.items():
                rates[name].append(_rate(read))
            for peer in peers:
                rates[peer].append(TOKENS / _peer(python, peer, "read", folder, TOKENS) / 1e6)
        for _ in range(3):
            resumes["ours"].append(_resume(synthetic))
            for peer in peers:
                resumes[peer].append(_peer(python, peer, "resume", folder, PEERS_RESUME_AT))
        facts = _count(store)
        building = _building(folder, options.rounds)
    unit = "M tokens/s"
    figures = {name: Figure.of(rates[name], unit) for name in ours}
    figures["store building, a core"] = Figure.of(building["ours"], "MB/s")
    figures["resume at 10^9"] = Figure.of(resumes["ours"])
    others = {peer: Figure.of(rates[peer], unit) for peer in peers}
    others |= {f"resume, {peer}": Figure.of(resumes[peer]) for peer in peers}
    others["tokenizers alone, a core"] = Figure.of(building["tokenizers"], "MB/s")
    # NumPy is no loader: it is what the memory gives.
    best = max((others[peer].median for peer in peers if peer != "numpy"), default=0.0)
    LoaderResult("loader", figures, others, GOALS | {"plain": best}, facts).print(options.json)


def _ours(store: Path) -> dict[str, Callable[[int], Batch]]:
    opened = TokenStore.open(store)
    plain = PlainSamples(opened, SEQ_LEN, seed=1)
    packed = PackedSamples(make_mixture({"main": opened}, SHARES), SEQ_LEN, seed=1)
    plain.batch(0, 1)
    packed.batch(packed.window_samples, 1)  # opens the files; round 1 plans its own window

    def proven(start: int) -> Batch:
        batch = packed.batch(start, BATCH)
        batch_digest(start, batch)
        return batch

    return {
        "plain": lambda start: plain.batch(start, BATCH),
        "packed": lambda start: packed.batch(start, BATCH),
        "packed and proven": proven,
    }


_next = defaultdict[int, int](int)


def _rate(read: Callable[[int], Batch]) -> float:
    """Million tokens a second, over samples that no round has read before: every window is planned anew."""
    start, samples = _next[id(read)], TOKENS // SEQ_LEN
    _next[id(read)] = start + samples
    began = time.perf_counter()
    for at in range(start, start + samples, BATCH):
        read(at)
    return TOKENS / (time.perf_counter() - began) / 1e6


def _resume(store: Path) -> float:
    """Open the store and read the first batch, as a process does that has imported what it needs."""
    began = time.perf_counter()
    opened = TokenStore.open(store)
    PackedSamples(make_mixture({"main": opened}, {}), SEQ_LEN, seed=1).batch(RESUME_AT, BATCH)
    return time.perf_counter() - began


def _building(folder: Path, rounds: int) -> dict[str, list[float]]:
    """MB of text a second of CPU time: from jsonl.zst to the files of a store, and what `tokenizers` takes for its
    part of that. A vocabulary of 32,000, as large models have."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    corpus = sorted((ROOT / ".cache/tiny-store/corpus").glob("*.jsonl.zst"))
    texts = [document.text for file in corpus for document in read_documents(file)]
    tokenizer = Tokenizer.train(texts, 32_000)
    num_bytes = sum(len(text.encode()) for text in texts)
    units = plan_units([str(file) for file in corpus]).units
    keys, engine = Keys(domain="domain", source="source", licence="licence"), choose_engine(tokenizer, "auto").engine
    rates: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds):
        target = folder / f"built-{number}"
        target.mkdir()
        began = time.process_time()
        records = (record for unit in units for record in read_unit(unit, keys, Defaults("none", "none")))
        write_unit(target, records, Encoder(tokenizer, engine), "uint16", tokenizer.end_of_text)
        rates["ours"].append(num_bytes / (time.process_time() - began) / 1e6)
        began = time.process_time()
        tokenizer.encode_batch(texts)
        rates["tokenizers"].append(num_bytes / (time.process_time() - began) / 1e6)
    return rates


def _count(store: Path) -> dict[str, float]:
    """What packing at 8k does to two windows: padding, loss, cuts, mixture."""
    opened, seq_len = TokenStore.open(store), 8192
    mixture = make_mixture({"main": opened}, SHARES)
    samples = PackedSamples(mixture, seq_len, seed=1)
    size = samples.window_samples
    cut = pieces = tokens = padded = 0
    taken = np.zeros(len(mixture.components), dtype=np.int64)
    owner = np.repeat(np.arange(len(taken)), [len(component.parts) for component in mixture.components])
    for number in range(2):
        window = samples.window(number)
        cut, pieces = cut + window.num_cut, pieces + len(window.pieces)
        tokens += int(window.pieces.length.sum())
        padded += size * seq_len - int(window.pieces.length.sum())
        taken += np.bincount(owner[window.pieces.part], window.pieces.length, len(taken)).astype(np.int64)
    wanted = np.array(mixture.quotas(2 * size * seq_len))
    return {
        "8k: tokens packed": tokens,
        "8k: padding, share": padded / (tokens + padded),
        "8k: tokens lost or repeated against the quotas": int(np.abs(taken - wanted).sum()),
        "8k: pieces cut although they would fit a sample, share": cut / pieces,
    }


def _write_store(folder: Path) -> Path:
    """flat.bin, and the same tokens as a store whose documents have lengths as on the web."""
    tiny = TokenStore.open(ROOT / ".cache/tiny-store")
    rng, metas, files = np.random.default_rng(1), [], {}
    store = folder / "store"
    with (folder / "flat.bin").open("wb") as flat:
        for number, part in enumerate(tiny.parts):
            tokens = np.tile(part.tokens, 16)
            flat.write(tokens.tobytes())
            lengths = np.exp(rng.normal(6.2, 1.2, len(tokens) // 300)).astype(np.int64) + 2
            edges = np.cumsum(lengths)
            offsets = np.concatenate([[0], edges[edges < len(tokens)], [len(tokens)]]).astype("<u8")
            meta = PartMeta(
                name=f"{number:05}-{part.meta.domain}",
                domain=part.meta.domain,
                num_documents=len(offsets) - 1,
                num_tokens=len(tokens),
            )
            place = store / "parts" / meta.name
            place.mkdir(parents=True)
            tokens.tofile(place / "tokens.bin")
            offsets.tofile(place / "offsets.bin")
            np.zeros(len(offsets) - 1, dtype="<u2").tofile(place / "sources.bin")
            metas.append(meta)
    shutil.copy(tiny.path / "tokenizer.json", store)
    for file in sorted(path for path in store.rglob("*") if path.is_file()):
        files[file.relative_to(store).as_posix()] = FileMeta(bytes=file.stat().st_size, sha256="0" * 64)
    _write_meta(store, tiny.meta, metas, files)
    return store


def _write_synthetic(store: Path) -> Path:
    """2 trillion tokens in 2,000 parts that share their (sparse) files: the cost of such an index without its text."""
    tiny = TokenStore.open(ROOT / ".cache/tiny-store")
    store.mkdir()
    shutil.copy(tiny.path / "tokenizer.json", store)
    with (store / "tokens").open("wb") as file:
        file.truncate(2 * _PART_TOKENS)
    with (store / "sources").open("wb") as file:
        file.truncate(2 * _PART_DOCUMENTS)
    np.linspace(0, _PART_TOKENS, _PART_DOCUMENTS + 1).astype("<u8").tofile(store / "offsets")
    metas, files = [], {"tokenizer.json": FileMeta(bytes=(store / "tokenizer.json").stat().st_size, sha256="0" * 64)}
    for number in range(_SYNTHETIC_PARTS):
        meta = PartMeta(name=f"{number:05}-web", domain="web", num_documents=_PART_DOCUMENTS, num_tokens=_PART_TOKENS)
        place = store / "parts" / meta.name
        place.mkdir(parents=True)
        for name in ("tokens", "offsets", "sources"):
            os.link(store / name, place / f"{name}.bin")
            size = (store / name).stat().st_size
            files[f"parts/{meta.name}/{name}.bin"] = FileMeta(bytes=size, sha256="0" * 64)
        metas.append(meta)
    _write_meta(store, tiny.meta, metas, files)
    return store


def _write_meta(store: Path, like: StoreMeta, parts: list[PartMeta], files: dict[str, FileMeta]) -> None:
    names = dict.fromkeys(part.domain for part in parts)
    domain = like.domains[0]
    meta = like.model_copy(
        update={
            "parts": tuple(parts),
            "files": files,
            "num_tokens": sum(part.num_tokens for part in parts),
            "num_documents": sum(part.num_documents for part in parts),
            "domains": tuple(
                domain.model_copy(
                    update={
                        "name": name,
                        "num_tokens": sum(part.num_tokens for part in parts if part.domain == name),
                        "num_documents": sum(part.num_documents for part in parts if part.domain == name),
                    }
                )
                for name in names
            ),
        }
    )
    (store / "meta.json").write_text(meta.model_dump_json())


def _peer(python: Path, name: str, what: str, folder: Path, count: int) -> float:
    script = ROOT / "benchmarks/peers/loaders.py"
    command = [python, script, name, what, folder, str(SEQ_LEN + 1), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, cwd=folder)
    if done.returncode:
        sys.exit(f"{name} {what} failed:\n{done.stderr[-2000:]}")
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


if __name__ == "__main__":
    main()
