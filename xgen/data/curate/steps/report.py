"""report.json, from what all units counted and all plans say."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

import numpy as np

from xgen.data.curate.classify.model import Model
from xgen.data.curate.report_model import Classifier, Input, Quarantined, Report, sum_of
from xgen.data.curate.steps import results
from xgen.data.curate.steps.base import Context
from xgen.data.curate.steps.kept import Kept
from xgen.data.curate.steps.ledger import NUM_SAMPLES, Facts, merge
from xgen.data.curate.steps.models import opened, roles
from xgen.data.curate.steps.report_corpus import domains, mixture
from xgen.data.curate.steps.report_found import AT_ONCE, duplicates, leaks, shared_lines
from xgen.data.curate.steps.report_funnel import facts_of, funnel, unit_facts
from xgen.data.curate.steps.texts import first_with_id, origins
from xgen.data.store import StoreMeta


def make_report(context: Context, stores: dict[str, StoreMeta]) -> Report:
    """`stores` are the metas of the stores that were written, by mixture."""
    tagged = facts_of(context, "tag")
    selected = facts_of(context, "select")
    kept = Kept.open(context)
    return Report(
        name=context.job.name,
        recipe=context.whole,
        xgen=version("xgen"),
        inputs=_inputs(context),
        quarantine=_quarantine(context, tagged),
        steps=funnel(context, tagged, selected),
        pii=tagged.counts.get("pii", {}),
        dedup=duplicates(context),
        frequency=kept.names.frequency,
        leaks=leaks(context),
        lines=shared_lines(context, selected),
        classifiers=_classifiers(context),
        domains=domains(kept, (tagged, selected)),
        mixtures=tuple(mixture(kept, name, meta) for name, meta in stores.items()),
    )


def _inputs(context: Context) -> tuple[Input, ...]:
    found = unit_facts(context, "tag")
    rows = []
    for number, (spec, planned) in enumerate(zip(context.job.inputs, context.plan.inputs, strict=True)):
        own = merge(facts for facts, unit in zip(found, context.plan.units, strict=True) if unit.input == number)
        rows.append(
            Input(
                path=spec.path,
                files=planned.files,
                ignored=planned.ignored,
                units=sum(unit.input == number for unit in context.plan.units),
                read=sum_of(own.kept.get("read", {}).values()),
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
    again, some = 0, list[int]()
    for begin in range(0, len(state), AT_ONCE):
        found = np.flatnonzero(state[begin : begin + AT_ONCE] == results.SAME_ID) + begin
        again += len(found)
        some += found[: NUM_SAMPLES - len(some)].tolist()
    if again:
        reason = "has the id of a record before it"
        rows.append(Quarantined(reason=reason, records=again, places=_repeated_ids(context, some), read=True))
    return tuple(sorted(rows, key=lambda row: (-row.records, row.reason)))


def _repeated_ids(context: Context, numbers: Sequence[int]) -> tuple[str, ...]:
    firsts = first_with_id(context, numbers)
    found = origins(context, {*firsts, *firsts.values()})
    return tuple(f"{found[one].place}: has the id {found[one].id!r} of {found[firsts[one]].place}" for one in numbers)


def _classifiers(context: Context) -> tuple[Classifier, ...]:
    rows = []
    for role in roles(context.job):
        model = opened(context.plan.models[role])
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
