"""tag: records are read, sorted into domains, filtered, judged, and hashed; a unit's documents are numbered in order.

docs.arrow has the documents kept, as the filters left them; dropped.arrow the others, with the rule, what it measured,
the bytes that came to it and an excerpt; trace.arrow has of every document where it was read, its id, what every filter
measured of it and the rule that dropped it, and in its schema the rules with their thresholds, by domain; kept.npy
whether it was kept. keys.bin (`KeysWriter`) has the records of all documents: a text that a filter drops counts in the
frequency of those that are like it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow
from numpy.typing import NDArray

from xgen.data.curate.exact import exact_hash
from xgen.data.curate.filters.pii import PiiFilter
from xgen.data.curate.filters.trace import Batch
from xgen.data.curate.match import band_records, exact_records
from xgen.data.curate.minhash import Geometry, signatures
from xgen.data.curate.report_model import Sample
from xgen.data.curate.steps.base import Context, Item
from xgen.data.curate.steps.chains import Chains, Filtered
from xgen.data.curate.steps.keys import KeysWriter
from xgen.data.curate.steps.ledger import Ledger, beginning
from xgen.data.curate.steps.models import Judge, Sorter
from xgen.data.curate.steps.plan import PlannedUnit, unit_name
from xgen.data.curate.texts import Texts
from xgen.data.errors import StoreError
from xgen.data.places import look, stem
from xgen.data.readers import Bad, Defaults, Keys, Record, read_unit
from xgen.data.writer import MAX_NAMES
from xgen.spec.curate import Curate, Input

DOCS_FILE, DROPPED_FILE, TRACE_FILE = "docs.arrow", "dropped.arrow", "trace.arrow"
RULES = "rules"  # of trace.arrow's schema: ChainRules
KEPT_FILE = "kept.npy"
ZSTD = pyarrow.ipc.IpcWriteOptions(compression="zstd")
_QUALITY = "quality.min_probability"
_BATCH_BYTES, _BATCH_DOCUMENTS = 8 << 20, 4096

DOCS = pyarrow.schema(
    [
        ("row", pyarrow.uint32()),
        ("domain", pyarrow.string()),
        ("source", pyarrow.string()),
        ("licence", pyarrow.string()),
        ("language", pyarrow.string()),
        ("score", pyarrow.float32()),  # log-odds of being good; not a number where no model was asked
        ("text", pyarrow.large_string()),
    ]
)
DROPPED = pyarrow.schema(
    [
        ("row", pyarrow.uint32()),
        ("domain", pyarrow.string()),
        ("source", pyarrow.string()),
        ("reason", pyarrow.string()),
        ("value", pyarrow.float64()),
        ("bound", pyarrow.float64()),
        ("bytes", pyarrow.int64()),
        ("excerpt", pyarrow.string()),
    ]
)


class Tag:
    def __init__(self, context: Context) -> None:
        self._context = context
        job, plan = context.job, context.plan
        self._chains = Chains(job)
        self._sorter = Sorter(job, plan)
        self._judge = Judge(job.quality, plan.models["quality"]) if job.quality else None
        self._pii = PiiFilter(job.pii) if job.pii else None
        self._geometry = geometry_of(job)
        self._trace = pyarrow.schema(
            [
                ("row", pyarrow.uint32()),
                ("id", pyarrow.string()),
                ("file", pyarrow.string()),
                ("line", pyarrow.uint64()),
                ("domain", pyarrow.string()),
                ("dropped_by", pyarrow.string()),
                *((name, pyarrow.float32()) for name in self._chains.measures),
            ],
            {RULES: f"[{','.join(rules.model_dump_json() for rules in self._chains.rules)}]"},
        )

    def items(self) -> Sequence[Item]:
        return self._context.units_of("tag")

    def write(self, item: Item, folder: Path, tick: Callable[[int], None]) -> None:
        unit = self._context.unit(item)
        ledger = Ledger()
        kept: list[NDArray[np.bool_]] = [np.zeros(0, dtype=np.bool_)]
        keys = KeysWriter(folder, self._context.plan.num_buckets)
        identity = self._context.input_name(unit.input) if self._context.job.inputs[unit.input].keys.id else ""
        known: set[str] = set()
        first = 0
        with (
            pyarrow.ipc.new_file(folder / DOCS_FILE, DOCS, options=ZSTD) as docs,
            pyarrow.ipc.new_file(folder / DROPPED_FILE, DROPPED, options=ZSTD) as dropped,
            pyarrow.ipc.new_file(folder / TRACE_FILE, self._trace, options=ZSTD) as trace,
        ):
            for batch in _batches(self._records(unit, ledger)):
                texts = Texts.of([record.text for record in batch])
                rows = np.arange(first, first + len(batch), dtype=np.uint64)
                first += len(batch)
                keys.add(self._keys(texts, rows, batch, identity))
                domains = self._sorter(texts, [record.domain for record in batch], [r.source for r in batch])
                known.update(domains)
                check_domains(known)
                filtered = self._chains(texts, domains, [record.url for record in batch])
                good, scores = self._judged(filtered, domains)
                kept.append(good)
                _count(ledger, filtered, good, domains, batch)
                _write_docs(docs, filtered, good, scores, rows, domains, batch)
                self._write_dropped(dropped, ledger, filtered, good, scores, rows, domains, texts, batch)
                why = [
                    reason or ("" if stays else _QUALITY) for reason, stays in zip(filtered.reason, good, strict=True)
                ]
                read = [[record.id for record in batch], [r.file for r in batch], [r.line for r in batch]]
                named = [rows.astype(np.uint32), *read, domains, why]
                columns = dict(zip(self._trace.names, (*named, *filtered.measures.values()), strict=True))
                trace.write_batch(pyarrow.record_batch(columns, schema=self._trace))
                tick(texts.num_bytes)
        files = [look(path) for path in unit.unit.paths]
        if unit.name != unit_name(unit.unit, self._context.job.inputs[unit.input], files):
            raise StoreError(unit.pieces[0].path, "changed while it was read", "run it again from the step prepare")
        np.save(folder / KEPT_FILE, np.concatenate(kept))
        keys.close()
        ledger.write(folder)

    def _records(self, unit: PlannedUnit, ledger: Ledger) -> Iterator[Record]:
        spec = self._context.job.inputs[unit.input]
        defaults = Defaults(spec.domain or "", spec.source or stem(spec.path), spec.licence)
        for record in read_unit(unit.unit, keys_of(spec), defaults, self._context.job.max_document):
            if isinstance(record, Bad):
                ledger.bad(record)
            else:
                yield record

    def _keys(
        self, texts: Texts, rows: NDArray[np.uint64], batch: Sequence[Record], identity: str
    ) -> dict[str, NDArray[np.uint64]]:
        found = {
            "near": band_records(signatures(texts, self._geometry), rows, self._geometry),
            "exact": exact_records(exact_hash(texts), rows),
        }
        if identity:  # a page has an id of its own, which alone drops none
            # The words of an id would be the same in another order of signs: its bytes are hashed as a word.
            names = Texts.of([f"{identity} {record.id}".encode().hex() for record in batch])
            found["ids"] = exact_records(exact_hash(names), rows)
        return found

    def _judged(self, filtered: Filtered, domains: Sequence[str]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Which documents of the batch stay, and the scores of those that the filters kept."""
        left = np.flatnonzero(filtered.kept)
        if self._judge is None:
            return filtered.kept, np.full(len(left), np.nan, dtype=np.float32)
        scores = self._judge(filtered.texts, [domains[row] for row in left.tolist()])
        good = filtered.kept.copy()
        good[left[scores < self._judge.least]] = False
        return good, scores

    def _excerpts(self, texts: Texts, rows: NDArray[np.int64]) -> list[str]:
        """How documents begin, without the personal data that is masked in those that stay."""
        found = Texts.of([beginning(texts, at) for at in rows.tolist()])
        if self._pii and len(found):
            changed = self._pii.check(Batch(found)).changed
            found = changed.texts if changed else found
        return found.to_strings()

    def _write_dropped(
        self,
        out: pyarrow.ipc.RecordBatchFileWriter,
        ledger: Ledger,
        filtered: Filtered,
        good: NDArray[np.bool_],
        scores: NDArray[np.float32],
        rows: NDArray[np.uint64],
        domains: Sequence[str],
        texts: Texts,
        batch: Sequence[Record],
    ) -> None:
        lost = np.flatnonzero(~good)
        sizes = np.diff(texts.offsets) - sum(filtered.cut.values())  # as they came to what dropped them
        place = np.cumsum(filtered.kept) - 1  # in the texts that the filters kept
        columns: dict[str, list[object]] = {name: [] for name in DROPPED.names}
        for at, excerpt in zip(lost.tolist(), self._excerpts(texts, lost), strict=True):
            reason = filtered.reason[at]
            value, bound = float(filtered.value[at]), float(filtered.bound[at])
            if filtered.kept[at]:
                assert self._judge is not None
                reason, value, bound = _QUALITY, float(scores[place[at]]), self._judge.least
                ledger.reject(domains[at], value)
            record = batch[at]
            row = (int(rows[at]), domains[at], record.source, reason, value, bound, int(sizes[at]), excerpt)
            for name, cell in zip(DROPPED.names, row, strict=True):
                columns[name].append(cell)
            sample = Sample(document=int(rows[at]), domain=domains[at], source=record.source, value=value, text=excerpt)
            ledger.drop(reason, int(sizes[at]), sample, bound)
        if len(lost):
            out.write_batch(pyarrow.record_batch(columns, schema=DROPPED))


def check_domains(names: Collection[str]) -> None:
    """Raises StoreError for more than are numbered."""
    if len(names) > MAX_NAMES:
        fix = "name kinds of text, not single documents: inputs[].domain or inputs[].keys.domain"
        raise StoreError("domains", f"there are more than {MAX_NAMES:,}", fix)


def geometry_of(job: Curate) -> Geometry:
    spec = job.dedup
    return Geometry(ngram=spec.ngram, bands=spec.bands, rows=spec.rows, similarity=spec.similarity)


def keys_of(spec: Input) -> Keys:
    keys = spec.keys
    domain = None if spec.domain else keys.domain
    source = None if spec.source else keys.source
    return Keys(keys.text, domain, source, keys.licence, keys.id, keys.url)


def _batches(records: Iterator[Record]) -> Iterator[list[Record]]:
    batch: list[Record] = []
    size = 0
    for record in records:
        batch.append(record)
        size += record.num_bytes + len(record.id) + len(record.url)
        if size >= _BATCH_BYTES or len(batch) == _BATCH_DOCUMENTS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _count(
    ledger: Ledger, filtered: Filtered, good: NDArray[np.bool_], domains: Sequence[str], batch: Sequence[Record]
) -> None:
    """What went through each filter; a document that a filter does not look at goes on."""
    sizes = np.array([record.num_bytes for record in batch], dtype=np.int64)
    names, inverse = np.unique(np.array(domains), return_inverse=True)

    def keep(step: str, mask: NDArray[np.bool_]) -> None:
        documents = np.bincount(inverse[mask], minlength=len(names))
        num_bytes = np.bincount(inverse[mask], weights=sizes[mask], minlength=len(names))
        for name, number, size in zip(names.tolist(), documents.tolist(), num_bytes.tolist(), strict=True):
            ledger.keep(step, name, int(size), number)

    alive = np.ones(len(batch), dtype=np.bool_)
    keep("read", alive)
    for name, passed in filtered.passed.items():
        dropped = np.array([step == name for step in filtered.step], dtype=np.bool_)
        alive &= ~dropped
        gone = np.where(passed, filtered.cut[name], 0)
        sizes = sizes - gone
        for domain, num_bytes in zip(names.tolist(), np.bincount(inverse, weights=gone).tolist(), strict=True):
            ledger.cut(name, domain, int(num_bytes))
        keep(name, alive)
    keep("quality", good)
    for kind, number in filtered.masked.items():
        ledger.count("pii", kind, number)


def _write_docs(
    out: pyarrow.ipc.RecordBatchFileWriter,
    filtered: Filtered,
    good: NDArray[np.bool_],
    scores: NDArray[np.float32],
    rows: NDArray[np.uint64],
    domains: Sequence[str],
    batch: Sequence[Record],
) -> None:
    numbers = np.flatnonzero(good).tolist()
    if not numbers:
        return
    chosen = pyarrow.array(good[filtered.kept])
    columns = [
        pyarrow.array(rows[good].astype(np.uint32)),
        pyarrow.array([domains[at] for at in numbers]),
        pyarrow.array([batch[at].source for at in numbers]),
        pyarrow.array([batch[at].licence for at in numbers]),
        pyarrow.array([filtered.language[at] for at in numbers]),
        pyarrow.array(scores).filter(chosen),
        filtered.texts.to_arrow().filter(chosen),
    ]
    out.write_batch(pyarrow.record_batch(columns, schema=DOCS))
