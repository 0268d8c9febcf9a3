"""select: of each cluster one document stays; evaluation leaks, shared lines and what the second model rejects go; the
rest becomes tokens.

tokens.bin has the documents by size of their clusters, for these have as many copies, then in the order of their places
in a store (`spread`), so that a stretch of a store is read in a few pieces; table.arrow has a row for each, by number.
dropped.arrow says why a document that was chosen went all the same; leaks.npy [leaks, 2] has documents and evaluation
items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow
from numpy.typing import NDArray

from xgen.data.curate.decontaminate import Finder, Found, Index, excerpt, leaking
from xgen.data.curate.filters.take import take_texts
from xgen.data.curate.lines import Removal, remove_lines
from xgen.data.curate.report_model import Sample
from xgen.data.curate.steps import results
from xgen.data.curate.steps.base import Context, Item
from xgen.data.curate.steps.chosen import Batch, keep, sample_of
from xgen.data.curate.steps.fates import STATES
from xgen.data.curate.steps.ledger import Ledger, beginning, cut, step_of
from xgen.data.curate.steps.lines import chosen_batches, common_lines, most_common, rule_of
from xgen.data.curate.steps.models import Judge
from xgen.data.curate.steps.selected import Rows
from xgen.data.curate.steps.tag import DOCS_FILE
from xgen.data.curate.texts import Texts
from xgen.data.encode import Encoder, choose_engine
from xgen.data.tokenizer import Tokenizer


class Select:
    def __init__(self, context: Context) -> None:
        job = context.job
        self._context = context
        context.need([context.single("cluster")], "cluster")
        self._begins = context.begins
        folder = context.work / "cluster"
        self._state = np.load(folder / results.STATE_FILE, mmap_mode="r")
        self._label = np.load(folder / results.LABEL_FILE, mmap_mode="r")
        self._size = np.load(folder / results.SIZE_FILE, mmap_mode="r")
        self._finder = Finder(Index.load(context.work / results.SEARCH_FILE)) if job.decontaminate else None
        self._judge = Judge(job.ensemble, context.plan.models["ensemble"]) if job.ensemble else None
        self._lines = job.dedup.lines
        if self._lines:
            self._common = common_lines(context)
            self._shown = self._common.hashes[most_common(self._common)]
        self._tokenizer = Tokenizer.load(Path(job.tokenizer))
        self._engine = choose_engine(self._tokenizer, job.engine).engine

    def items(self) -> Sequence[Item]:
        return self._context.units_of("select")

    def write(self, item: Item, folder: Path, tick: Callable[[int], None]) -> None:
        number, ledger, rows = int(item.name), Ledger(), Rows(self._tokenizer)
        encoder = Encoder(self._tokenizer, self._engine, "engine: tokenizers")
        self._count_duplicates(number, ledger, tick)
        for first, (docs, texts) in enumerate(chosen_batches(self._context, number)):
            columns = {name: docs.column(name) for name in docs.schema.names if name != "text"}
            numbers = columns["row"].to_numpy().astype(np.uint64) + np.uint64(self._begins[number])
            domains, sources, licences, languages = (
                columns[name].to_pylist() for name in ("domain", "source", "licence", "language")
            )
            batch = Batch(numbers, domains, sources, licences, languages, columns["score"].to_numpy(), texts)
            for change in (self._without_leaks, self._without_lines, self._judged):
                batch = change(batch, ledger, rows)
            rows.add(batch, encoder, self._size, first == 0)
            tick(texts.num_bytes)
        rows.write(folder, self._context.job.seed)
        ledger.write(folder)

    def _count_duplicates(self, number: int, ledger: Ledger, tick: Callable[[int], None]) -> None:
        """What of the unit the step `cluster` left out, with samples."""
        begin = int(self._begins[number])
        state = self._state[begin : int(self._begins[number + 1])]
        with pyarrow.memory_map(str(self._context.folder("tag", number) / DOCS_FILE)) as file:
            docs = pyarrow.ipc.open_file(file)
            for place in range(docs.num_record_batches):
                tick(0)
                batch = docs.get_batch(place)
                texts = Texts.from_arrow(batch.column("text"))
                sizes = np.diff(texts.offsets).tolist()
                domains, sources = batch.column("domain").to_pylist(), batch.column("source").to_pylist()
                rows = batch.column("row").to_numpy()
                # In this order: what a step keeps, the next one gets.
                order = (results.SAME_ID, results.EARLIER, results.EXACT, results.NEAR)
                found = state[rows]
                for at, what in enumerate(found.tolist()):
                    steps = order if what == results.CHOSEN else order[: order.index(what)]
                    for one in steps:
                        ledger.keep(step_of(STATES[one]), domains[at], sizes[at])
                    if what == results.CHOSEN:
                        continue
                    row = int(rows[at])
                    sample = Sample(
                        document=begin + row,
                        domain=domains[at],
                        source=sources[at],
                        value=None if what == results.SAME_ID else float(self._size[begin + row]),
                        text=beginning(texts, at),
                        other=int(self._label[begin + row]) if what in (results.NEAR, results.EXACT) else None,
                    )
                    ledger.drop(STATES[what], sizes[at], sample)

    def _without_lines(self, batch: Batch, ledger: Ledger, rows: Rows) -> Batch:
        spec = self._lines
        if spec is None:
            return batch
        asked = np.array([domain not in spec.except_domains for domain in batch.domains], dtype=np.bool_)
        some = batch.texts if asked.all() else take_texts(batch.texts, np.flatnonzero(asked))
        removal = remove_lines(some, self._common, rule_of(spec))
        num_lines, num_bytes = np.zeros((2, len(asked)), dtype=np.int64)
        num_lines[asked], num_bytes[asked] = removal.num_lines, removal.num_bytes
        texts = removal.texts if asked.all() else _merged(asked, removal.texts, batch.texts)
        ledger.count("common_lines", "cut", int(num_lines.sum()))
        ledger.count("common_lines", "bytes", int(num_bytes.sum()))
        ledger.count("common_lines", "documents", int((num_lines > 0).sum()))
        _show_lines(ledger, some, removal, self._shown)
        left = np.ones(len(texts), dtype=np.bool_)
        for at in np.flatnonzero(num_lines).tolist():
            left[at] = bool(texts[at].strip())
            if left[at]:
                ledger.cut("common_lines", batch.domains[at], int(num_bytes[at]))
            else:
                sample = sample_of(batch, at, float(num_lines[at]))
                rows.drop(ledger, "common_lines.nothing_left", batch.num_bytes(at), sample)
        return keep(replace(batch, texts=texts), left, "common_lines", ledger)

    def _without_leaks(self, batch: Batch, ledger: Ledger, rows: Rows) -> Batch:
        if self._finder is None:
            return batch
        assert self._context.job.decontaminate is not None
        index = self._finder.index
        found = self._finder.find(batch.texts)
        least = self._context.job.decontaminate.min_share
        leaks = leaking(found, index, len(batch.texts), least)
        good = leaks[found.documents] & (found.matches >= least * index.item_ngrams[found.items])
        documents = batch.numbers[found.documents[good]].astype(np.int64)
        rows.leaks += zip(documents.tolist(), found.items[good].tolist(), strict=True)
        for at in np.flatnonzero(leaks).tolist():
            reason, sample = _leak(batch, at, found, index)
            rows.drop(ledger, reason, batch.num_bytes(at), sample)
        return keep(batch, ~leaks, "leaks", ledger)

    def _judged(self, batch: Batch, ledger: Ledger, rows: Rows) -> Batch:
        if self._judge is None:
            return batch
        scores = self._judge(batch.texts, batch.domains)
        bad = scores < self._judge.least
        for at in np.flatnonzero(bad).tolist():
            sample = sample_of(batch, at, float(scores[at]))
            rows.drop(ledger, "ensemble.min_probability", batch.num_bytes(at), sample, self._judge.least)
            ledger.reject(batch.domains[at], float(scores[at]))
            # Of what the filters remove of each size: for the rule of frequencies.
            ledger.count("removed", str(int(self._size[int(batch.numbers[at])])), 1)
        scores = np.where(np.isnan(scores), batch.scores, scores)
        return keep(replace(batch, scores=scores), ~bad, "ensemble", ledger)


def _merged(changed: NDArray[np.bool_], some: Texts, texts: Texts) -> Texts:
    """`texts` with `some` in the places that `changed` marks."""
    sizes = np.concatenate([np.diff(some.offsets), np.diff(texts.offsets)])
    both = Texts(np.concatenate([some.data, texts.data]), np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]))
    order = np.arange(len(texts)) + len(some)
    order[changed] = np.arange(len(some))
    return take_texts(both, order)


def _show_lines(ledger: Ledger, texts: Texts, removal: Removal, shown: NDArray[np.uint64]) -> None:
    """How the `shown` lines read in the first document that has them."""
    for at in np.flatnonzero(np.isin(removal.hashes, shown)).tolist():
        begin, end = removal.bounds[at].tolist()
        line = cut(texts.data[begin : min(end, begin + 500)].tobytes().decode(errors="ignore").strip())
        ledger.lines.setdefault(int(removal.hashes[at]), line)


def _leak(batch: Batch, at: int, found: Found, index: Index) -> tuple[str, Sample]:
    """Reason and a sample of a leak: the item of which the document has most."""
    rows = np.flatnonzero(found.documents == at)
    best = int(rows[np.argmax(found.matches[rows])])
    item = int(found.items[best])
    name = index.sets[int(index.item_sets[item])].name
    text = cut(excerpt(batch.texts, at, int(found.words[best]), 40))
    sample = sample_of(batch, at, float(found.matches[best])).model_copy(
        update={"text": text, "other": int(index.item_numbers[item])}
    )
    return f"leaks.{name}", sample
