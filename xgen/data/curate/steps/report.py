"""report.json, from what all units counted and all plans say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from numpy.typing import NDArray

from xgen.data.curate.classify.model import Model, load_classifier
from xgen.data.curate.decontaminate import Index, leaks_by_set
from xgen.data.curate.report_model import (
    Classifier,
    Copies,
    Count,
    Dedup,
    Domain,
    EvaluationLeaks,
    Histogram,
    Input,
    Lines,
    Mixture,
    Quarantined,
    Reason,
    Report,
    Sample,
    SizeBin,
    Step,
)
from xgen.data.curate.steps import results
from xgen.data.curate.steps.balance import COPIES_FILE, MixturePlan, Names, mixture_items, read_documents
from xgen.data.curate.steps.balance import PLAN_FILE as MIXTURE_FILE
from xgen.data.curate.steps.base import Context
from xgen.data.curate.steps.chains import Chains
from xgen.data.curate.steps.ledger import FACTS_FILE, Drop, Facts, merge
from xgen.data.curate.steps.lines import FREQUENT_FILE
from xgen.data.curate.steps.models import roles
from xgen.data.curate.steps.tag import geometry_of
from xgen.data.curate.steps.texts import excerpts
from xgen.data.curate.tally import SIZE_BINS
from xgen.data.store import StoreMeta

_AFTER = ("ids", "earlier", "exact", "near", "leaks", "lines", "ensemble")  # steps after the filters, in order
_LENGTHS = tuple(float(2**power) for power in range(24))
_SCORES = tuple(float(value) for value in np.linspace(-8, 8, 33))


def make_report(context: Context, stores: dict[str, StoreMeta]) -> Report:
    """`stores` are the metas of the stores that were written, by mixture."""
    tagged = _facts(context, "tag")
    selected = _facts(context, "select")
    columns, names = read_documents(context)
    return Report(
        name=context.job.name,
        recipe=context.whole,
        xgen=version("xgen"),
        inputs=_inputs(context),
        quarantine=_quarantine(context, tagged),
        steps=_steps(context, tagged, selected),
        pii=tagged.counts.get("pii", {}),
        dedup=_dedup(context),
        frequency=names.frequency,
        leaks=_leaks(context),
        lines=_lines(context, selected),
        classifiers=_classifiers(context),
        domains=_domains(columns, names, context),
        mixtures=tuple(_mixture(context, name, meta, columns, names) for name, meta in stores.items()),
    )


def _unit_facts(context: Context, step: str) -> list[Facts]:
    return [Facts.model_validate_json((one.folder / FACTS_FILE).read_bytes()) for one in context.units_of(step)]


def _facts(context: Context, step: str) -> Facts:
    """Of all units. The step tag numbers documents in their unit."""
    found = _unit_facts(context, step)
    if step == "tag":
        found = [_numbered(facts, int(begin)) for facts, begin in zip(found, context.begins[:-1], strict=True)]
    return merge(found)


def _numbered(facts: Facts, begin: int) -> Facts:
    def moved(drop: Drop) -> Drop:
        samples = [(rank, one.model_copy(update={"document": one.document + begin})) for rank, one in drop.samples]
        return drop.model_copy(update={"samples": tuple(samples)})

    drops = {step: {name: moved(drop) for name, drop in reasons.items()} for step, reasons in facts.drops.items()}
    return facts.model_copy(update={"drops": drops})


def _inputs(context: Context) -> tuple[Input, ...]:
    found = _unit_facts(context, "tag")
    rows = []
    for number, (spec, planned) in enumerate(zip(context.job.inputs, context.plan.inputs, strict=True)):
        own = merge(facts for facts, unit in zip(found, context.plan.units, strict=True) if unit.input == number)
        rows.append(
            Input(
                path=spec.path,
                files=planned.files,
                ignored=planned.ignored,
                units=sum(unit.input == number for unit in context.plan.units),
                read=_sum(own.kept.get("read", {}).values()),
                quarantined=sum(records for records, _ in own.quarantined.values()),
            )
        )
    return tuple(rows)


def _quarantine(context: Context, tagged: Facts) -> tuple[Quarantined, ...]:
    """What could not be read, and what has an id that was there."""
    rows = [
        Quarantined(reason=reason, records=number, places=places)
        for reason, (number, places) in tagged.quarantined.items()
    ]
    state = np.load(context.work / "cluster" / results.STATE_FILE, mmap_mode="r")
    if again := int(np.count_nonzero(state == results.SAME_ID)):
        rows.append(Quarantined(reason="has the id of a record before it", records=again, places=()))
    return tuple(sorted(rows, key=lambda row: (-row.records, row.reason)))


def _steps(context: Context, tagged: Facts, selected: Facts) -> tuple[Step, ...]:
    job = context.job
    there = {
        "earlier": bool(job.dedup.earlier),
        "ids": any(item.keys.id for item in job.inputs),
        "lines": job.dedup.lines is not None,
        "leaks": job.decontaminate is not None,
        "ensemble": job.ensemble is not None,
    }
    order = ["read", *Chains(job).filters, *(["quality"] if job.quality else [])]
    order += [name for name in _AFTER if there.get(name, True)]
    texts = _other_texts(context, selected)
    rows = []
    taken = Count()
    for name in order:
        facts = selected if name in _AFTER else tagged
        kept = _sum(facts.kept.get(name, {}).values())
        rows.append(
            Step(
                name=name,
                taken=kept if name == "read" else taken,
                kept=kept,
                changed=facts.changed.get(name, 0),
                by_domain=facts.kept.get(name, {}),
                reasons=_reasons(facts.drops.get(name, {}), texts),
            )
        )
        taken = kept
    return tuple(rows)


def _reasons(drops: dict[str, Drop], texts: dict[int, str]) -> tuple[Reason, ...]:
    def whole(sample: Sample) -> Sample:
        text = texts.get(sample.other, "") if sample.other is not None else ""
        return sample.model_copy(update={"other_text": text})

    rows = [
        Reason(
            name=name,
            bound=drop.bound,
            dropped=_sum(drop.by_domain.values()),
            by_domain=drop.by_domain,
            samples=tuple(whole(sample) for _, sample in drop.samples),
        )
        for name, drop in drops.items()
    ]
    return tuple(sorted(rows, key=lambda row: (-row.dropped.documents, row.name)))


def _other_texts(context: Context, selected: Facts) -> dict[int, str]:
    """Of the documents that stay where the samples are duplicates."""
    wanted = {
        sample.other
        for step in ("near", "exact")
        for drop in selected.drops.get(step, {}).values()
        for _, sample in drop.samples
        if sample.other is not None
    }
    return excerpts(context, wanted)


def _sum(counts: Iterable[Count]) -> Count:
    every = list(counts)
    return Count(documents=sum(one.documents for one in every), bytes=sum(one.bytes for one in every))


def _dedup(context: Context) -> Dedup:
    geometry = geometry_of(context.job)
    folder = context.work / "cluster"
    state = np.load(folder / results.STATE_FILE, mmap_mode="r")
    sizes, counts, _ = np.load(folder / results.REMOVALS_FILE)
    matched = context.buckets_of("match", context.recipes["match"])
    bins = np.searchsorted(np.array(SIZE_BINS), sizes, side="right") - 1
    clusters = np.bincount(bins, weights=counts, minlength=len(SIZE_BINS)).astype(np.int64)
    documents = np.bincount(bins, weights=counts * sizes, minlength=len(SIZE_BINS)).astype(np.int64)
    states = np.bincount(state, minlength=6)
    return Dedup(
        ngram=geometry.ngram,
        bands=geometry.bands,
        rows=geometry.rows,
        threshold=geometry.similarity,
        curve=tuple((step / 50, geometry.probability(step / 50)) for step in range(51)),
        exact=int(states[results.EXACT]),
        near=int(states[results.NEAR]),
        earlier=int(states[results.EARLIER]),
        unplaced=sum(int(np.load(one.folder / results.UNPLACED_FILE)) for one in matched),
        clusters=int(counts.sum()),
        largest=int(sizes.max(initial=0)),
        sizes=tuple(
            SizeBin(size=size, clusters=number, documents=total)
            for size, number, total in zip(SIZE_BINS, clusters.tolist(), documents.tolist(), strict=True)
        ),
    )


def _leaks(context: Context) -> tuple[EvaluationLeaks, ...]:
    if context.job.decontaminate is None:
        return ()
    index = Index.load(context.work / results.SEARCH_FILE)
    rows = np.concatenate([np.load(one.folder / results.LEAKS_FILE) for one in context.units_of("select")])
    return tuple(
        EvaluationLeaks(
            name=one.name, items=one.num_items, short=one.num_short, leaked=one.num_leaked, documents=one.num_documents
        )
        for one in leaks_by_set(index, rows[:, 0], rows[:, 1])
    )


def _lines(context: Context, selected: Facts) -> Lines | None:
    spec = context.job.dedup.lines
    if spec is None:
        return None
    common = context.buckets_of("common", context.recipes["lines"])
    counts, lines = selected.counts.get("lines", {}), selected.counts.get("line", {})
    return Lines(
        unit=spec.unit,
        max_documents=spec.max_documents,
        frequent=sum(len(np.load(one.folder / FREQUENT_FILE, mmap_mode="r")) for one in common),
        cut=counts.get("cut", 0),
        bytes=counts.get("bytes", 0),
        documents=counts.get("documents", 0),
        samples=tuple(sorted(lines, key=lambda line: (-lines[line], line))[:20]),
    )


def _classifiers(context: Context) -> tuple[Classifier, ...]:
    rows = []
    for role in roles(context.job):
        model = load_classifier(Path(context.plan.models[role].path))
        figures = model.meta.figures if isinstance(model, Model) else None
        rows.append(
            Classifier(
                role=role,
                fingerprint=model.fingerprint,
                labels=model.labels,
                documents=figures.documents if figures else 0,
                accuracy=figures and figures.accuracy,
                log_loss=figures and figures.log_loss,
                calibration_error=figures and figures.ece,
                auc={name: label.auc for name, label in figures.labels.items()} if figures else {},
            )
        )
    return tuple(rows)


def _domains(columns: dict[str, NDArray[Any]], names: Names, context: Context) -> tuple[Domain, ...]:
    languages: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    scores = []
    for one in context.units_of("select"):
        with pyarrow.memory_map(str(one.folder / results.TABLE_FILE)) as file:
            table = pyarrow.ipc.open_file(file).read_all().select(["domain", "language", "score"])
            scores.append(table["score"].to_numpy())
        counted = table.group_by(["domain", "language"]).aggregate([([], "count_all")]).to_pylist()
        for row in counted:
            if row["language"]:
                languages[row["domain"]][row["language"]] += row["count_all"]
    score = np.concatenate(scores)
    rows = []
    for number, name in enumerate(names.domains):
        own = np.flatnonzero(columns["domains"] == number)
        origins = np.bincount(columns["origins"][own], minlength=len(names.origins)).tolist()
        sources: dict[str, int] = defaultdict(int)
        licences: dict[str, int] = defaultdict(int)
        for (source, licence), documents in zip(names.origins, origins, strict=True):
            if documents:
                sources[source] += documents
                licences[licence] += documents
        judged = score[own][~np.isnan(score[own])]
        rows.append(
            Domain(
                name=name,
                documents=len(own),
                bytes=int(columns["num_bytes"][own].sum()),
                tokens=int(columns["num_tokens"][own].sum()),
                sources=dict(sources),
                licences=dict(licences),
                languages=dict(sorted(languages[name].items())),
                lengths=_histogram(columns["num_tokens"][own], _LENGTHS),
                quality=_histogram(judged, _SCORES) if len(judged) else None,
                bands=names.bands.get(name, ()),
            )
        )
    return tuple(rows)


def _mixture(context: Context, name: str, meta: StoreMeta, columns: dict[str, NDArray[Any]], names: Names) -> Mixture:
    folder = mixture_items(context)[name].folder
    planned = MixturePlan.model_validate_json((folder / MIXTURE_FILE).read_bytes())
    copies = np.load(folder / COPIES_FILE, mmap_mode="r")
    lengths = {}
    for number, domain in enumerate(names.domains):
        own = np.flatnonzero((columns["domains"] == number) & (copies > 0))
        if len(own):
            lengths[domain] = _histogram(columns["num_tokens"][own], _LENGTHS, copies[own])
    return Mixture(
        name=name,
        budget=planned.budget,
        planned=planned.planned,
        written=meta.num_tokens,
        documents=planned.documents,
        store=name,
        fingerprint=meta.fingerprint,
        quotas=planned.quotas,
        rows=planned.rows,
        copies=tuple(Copies(copies=number, documents=count) for number, count in sorted(planned.copies.items())),
        lengths=lengths,
        unmet=planned.unmet,
    )


def _histogram(values: NDArray[Any], edges: tuple[float, ...], weights: NDArray[Any] | None = None) -> Histogram:
    places = np.clip(np.searchsorted(np.array(edges), values, side="right") - 1, 0, len(edges) - 2)
    counts = np.bincount(places, weights=weights, minlength=len(edges) - 1)
    return Histogram(edges=edges, counts=tuple(int(count) for count in counts))
