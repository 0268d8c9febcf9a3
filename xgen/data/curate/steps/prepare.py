"""prepare: looks at all that the spec names, trains the models that have labels, and freezes the plan.

What is wrong with a spec is found here, before a thousand shards start.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from xgen.data.curate.cluster import Clusters, reduce_edges
from xgen.data.curate.decontaminate import Finder, Index, build_index, read_set
from xgen.data.curate.exact import exact_hash
from xgen.data.curate.frequency import CopyTable
from xgen.data.curate.lines import count_lines, frequent, remove_lines
from xgen.data.curate.match import band_records, by_bucket, exact_records, match
from xgen.data.curate.minhash import signatures
from xgen.data.curate.steps.base import Context
from xgen.data.curate.steps.chains import Chains
from xgen.data.curate.steps.earlier import Earlier
from xgen.data.curate.steps.finish import check_place
from xgen.data.curate.steps.folders import write_json
from xgen.data.curate.steps.lines import rule_of
from xgen.data.curate.steps.models import Judge, Sorter, prepare_models
from xgen.data.curate.steps.plan import PLAN_FILE, make_plan
from xgen.data.curate.steps.results import MANIFEST_FILE, SEARCH_FILE, SPEC_FILE
from xgen.data.curate.steps.tag import geometry_of
from xgen.data.curate.texts import Texts
from xgen.data.errors import StoreError
from xgen.data.tokenizer import Tokenizer
from xgen.spec.curate import Curate


def prepare(job: Curate, tick: Callable[[int], None]) -> None:
    """Raises StoreError for whatever of the spec cannot be."""
    out, work = Path(job.out), Path(job.work_folder)
    if out.exists() and not (out / MANIFEST_FILE).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise StoreError(out, "is there and is no curated corpus", "write another folder, or remove it")
    out.parent.mkdir(parents=True, exist_ok=True)
    if work.stat().st_dev != out.parent.stat().st_dev:
        raise StoreError(work, f"is on another file system than {out}", "name a work folder beside it: work")
    if job.frequency.table:
        CopyTable.parse(job.frequency.table, "frequency.table")
    Tokenizer.load(Path(job.tokenizer))
    Earlier.open(job).check()
    Chains(job)
    plan = make_plan(job, {})  # what is wrong with an input is found before a model is trained
    plan = plan.model_copy(update={"models": prepare_models(job, work)})
    check_place(Context(job, work, plan))
    tick(0)
    Sorter(job, plan)
    for role, spec in (("quality", job.quality), ("ensemble", job.ensemble)):
        if spec:
            Judge(spec, plan.models[role])
    index = search_index(job) if job.decontaminate else None
    if index:
        index.save(work / f"{SEARCH_FILE}.tmp")
        (work / f"{SEARCH_FILE}.tmp").rename(work / SEARCH_FILE)
    _compile(job, index)
    plan.check()
    tick(0)
    write_json(work / SPEC_FILE, job)
    write_json(work / PLAN_FILE, plan)


def _compile(job: Curate, index: Index | None) -> None:
    """Compiled code is kept beside its source: what a thousand shards need is compiled once."""
    texts, geometry = Texts.of(["one two three four five six\n"]), geometry_of(job)
    number = np.zeros(1, dtype=np.uint64)
    records = band_records(signatures(texts, geometry), number, geometry)
    exact = exact_records(exact_hash(texts), number)
    for some in (records, exact):
        edges = match(by_bucket(some, 4)[0], 0).edges
        clusters = Clusters(0, 1, [reduce_edges(edges)])
        clusters.choose()
        clusters.rows(0, 1)
    if job.dedup.lines:
        rule = rule_of(job.dedup.lines)
        remove_lines(texts, frequent(count_lines(texts, rule), rule), rule)
    if index:
        Finder(index).find(texts)


def search_index(job: Curate) -> Index:
    """What is looked for of the evaluation sets."""
    spec = job.decontaminate
    assert spec is not None
    sets = [read_set(one.name, Path(one.path), one.keys) for one in spec.sets]
    return build_index(sets, spec.ngram, spec.min_words)
