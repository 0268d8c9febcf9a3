"""The funnel of the report: what each step got, kept and dropped, by domain and rule, with samples to read."""

from __future__ import annotations

from collections.abc import Iterable

from xgen.data.curate.report_model import Count, Reason, Sample, Step
from xgen.data.curate.steps.base import Context
from xgen.data.curate.steps.chains import Chains
from xgen.data.curate.steps.ledger import FACTS_FILE, Drop, Facts, merge
from xgen.data.curate.steps.texts import excerpts

_AFTER = ("ids", "earlier", "exact", "near", "leaks", "lines", "ensemble")  # steps after the filters, in order


def unit_facts(context: Context, step: str) -> list[Facts]:
    return [Facts.model_validate_json((one.folder / FACTS_FILE).read_bytes()) for one in context.units_of(step)]


def facts_of(context: Context, step: str) -> Facts:
    """Of all units. The step tag numbers documents in their unit."""
    found = unit_facts(context, step)
    if step == "tag":
        found = [_numbered(facts, int(begin)) for facts, begin in zip(found, context.begins[:-1], strict=True)]
    return merge(found)


def _numbered(facts: Facts, begin: int) -> Facts:
    def moved(drop: Drop) -> Drop:
        samples = [(rank, one.model_copy(update={"document": one.document + begin})) for rank, one in drop.samples]
        return drop.model_copy(update={"samples": tuple(samples)})

    drops = {step: {name: moved(drop) for name, drop in reasons.items()} for step, reasons in facts.drops.items()}
    return facts.model_copy(update={"drops": drops})


def funnel(context: Context, tagged: Facts, selected: Facts) -> tuple[Step, ...]:
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
        kept = sum_of(facts.kept.get(name, {}).values())
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
            dropped=sum_of(drop.by_domain.values()),
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


def sum_of(counts: Iterable[Count]) -> Count:
    every = list(counts)
    return Count(documents=sum(one.documents for one in every), bytes=sum(one.bytes for one in every))
