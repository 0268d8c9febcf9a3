"""prepare: looks at all that the spec names, trains the models that have labels, and freezes the plan.

What is wrong with a spec is found here, before a thousand shards start.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from xgen.data.curate.decontaminate import Index, build_index, read_set
from xgen.data.curate.steps.chains import Chains
from xgen.data.curate.steps.folders import write_json
from xgen.data.curate.steps.models import Judge, Sorter, prepare_models
from xgen.data.curate.steps.plan import PLAN_FILE, make_plan
from xgen.data.curate.steps.results import MANIFEST_FILE, SEARCH_FILE
from xgen.data.errors import StoreError
from xgen.data.tokenizer import Tokenizer
from xgen.spec.curate import Curate


def prepare(job: Curate, tick: Callable[[int], None]) -> None:
    """Raises StoreError for whatever of the spec cannot be."""
    out, work = Path(job.out), Path(job.work_folder)
    if out.exists() and not (out / MANIFEST_FILE).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise StoreError(out, "is there and is no curated corpus", "write another folder, or remove it")
    work.mkdir(parents=True, exist_ok=True)
    Tokenizer.load(Path(job.tokenizer))
    Chains(job)
    plan = make_plan(job, prepare_models(job, work))
    Sorter(job, plan)
    for role, spec in (("quality", job.quality), ("ensemble", job.ensemble)):
        if spec:
            Judge(spec, plan.models[role])
    if job.decontaminate:
        index = search_index(job)
        index.save(work / f"{SEARCH_FILE}.tmp")
        (work / f"{SEARCH_FILE}.tmp").rename(work / SEARCH_FILE)
    write_json(work / PLAN_FILE, plan)
    tick(0)


def search_index(job: Curate) -> Index:
    """What is looked for of the evaluation sets."""
    spec = job.decontaminate
    assert spec is not None
    sets = [read_set(one.name, Path(one.path), one.keys) for one in spec.sets]
    return build_index(sets, spec.ngram, spec.min_words)
