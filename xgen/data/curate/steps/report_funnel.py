"""The funnel of the report: what each step got, kept and dropped, by domain and rule, with samples to read."""

from __future__ import annotations

from dataclasses import dataclass

from xgen.data.curate.report_model import Count, Flow, Reason, Sample, Step, sum_of
from xgen.data.curate.steps.base import Context
from xgen.data.curate.steps.chains import Chains
from xgen.data.curate.steps.ledger import Drop, Facts, merge, read_facts
from xgen.data.curate.steps.texts import Origin, excerpts, first_with_id, origins

_AFTER = ("ids", "earlier", "exact", "near", "leaks", "common_lines", "ensemble")  # steps after the filters, in order


def unit_facts(context: Context, step: str) -> list[Facts]:
    return [read_facts(one.folder) for one in context.units_of(step)]


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

    drops = {step: tuple(moved(drop) for drop in rules) for step, rules in facts.drops.items()}
    return facts.model_copy(update={"drops": drops})


def funnel(context: Context, tagged: Facts, selected: Facts) -> tuple[Step, ...]:
    job = context.job
    there = {
        "earlier": bool(job.dedup.earlier),
        "ids": any(item.keys.id for item in job.inputs),
        "common_lines": job.dedup.lines is not None,
        "leaks": job.decontaminate is not None,
        "ensemble": job.ensemble is not None,
    }
    order = ["read", *Chains(job).filters, *(["quality"] if job.quality else [])]
    order += [name for name in _AFTER if there.get(name, True)]
    about = _About.of(context, tagged, selected)
    rows: list[Step] = []
    taken = tagged.kept.get("read", {})
    for name in order:
        facts = selected if name in _AFTER else tagged
        drops = facts.drops.get(name, ())
        by_domain = _flows(taken, facts.kept.get(name, {}), drops, facts.cut.get(name, {}))
        whole = Flow(
            taken=sum_of(flow.taken for flow in by_domain.values()),
            kept=sum_of(flow.kept for flow in by_domain.values()),
            dropped=sum_of(flow.dropped for flow in by_domain.values()),
            cut=sum(flow.cut for flow in by_domain.values()),
        )
        rows.append(Step(name=name, by_domain=by_domain, reasons=_reasons(drops, about), **dict(whole)))
        taken = {domain: flow.kept for domain, flow in by_domain.items()}
    return tuple(rows)


def _flows(
    taken: dict[str, Count], kept: dict[str, Count], drops: tuple[Drop, ...], cut: dict[str, int]
) -> dict[str, Flow]:
    return {
        domain: Flow(
            taken=taken.get(domain, Count()),
            kept=kept.get(domain, Count()),
            dropped=sum_of(drop.by_domain.get(domain, Count()) for drop in drops),
            cut=cut.get(domain, 0),
        )
        for domain in sorted({*taken, *kept, *cut})
    }


@dataclass(frozen=True)
class _About:
    """What is known of the documents of samples, and of those that they are held against."""

    firsts: dict[int, int]
    origins: dict[int, Origin]
    texts: dict[int, str]

    @classmethod
    def of(cls, context: Context, tagged: Facts, selected: Facts) -> _About:
        samples = [
            (step, sample)
            for facts in (tagged, selected)
            for step, drops in facts.drops.items()
            for drop in drops
            for _, sample in drop.samples
        ]
        firsts = first_with_id(context, {one.document for step, one in samples if step == "ids"})
        before = {one.other for step, one in samples if step in ("near", "exact") and one.other is not None}
        before |= set(firsts.values())
        documents = {one.document for _, one in samples}
        return cls(firsts, origins(context, documents | before), excerpts(context, before))

    def whole(self, sample: Sample) -> Sample:
        origin = self.origins[sample.document]
        other = self.firsts.get(sample.document, sample.other)
        text = self.texts.get(other, "") if other is not None else ""
        update = {"id": origin.id, "place": origin.place, "other": other, "other_text": text}
        return sample.model_copy(update=update)


def _reasons(drops: tuple[Drop, ...], about: _About) -> tuple[Reason, ...]:
    rows = [
        Reason(
            name=drop.name,
            bound=drop.bound,
            dropped=sum_of(drop.by_domain.values()),
            by_domain=drop.by_domain,
            samples=tuple(about.whole(sample) for _, sample in drop.samples),
        )
        for drop in drops
    ]
    return tuple(sorted(rows, key=lambda row: (-row.dropped.documents, row.name, row.bound or 0.0)))
