"""What the report says of the corpus: domains, and the mixtures that were written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow
from numpy.typing import NDArray

from xgen.data.curate.report_model import Copies, Domain, Histogram, Mixture
from xgen.data.curate.steps import results
from xgen.data.curate.steps.balance import COPIES_FILE, MixturePlan, Names, mixture_items
from xgen.data.curate.steps.balance import PLAN_FILE as MIXTURE_FILE
from xgen.data.curate.steps.base import Context
from xgen.data.curate.steps.ledger import SCORES, Facts
from xgen.data.store import StoreMeta

_LENGTHS = tuple(float(2**power) for power in range(24))


def domains(
    columns: dict[str, NDArray[Any]], names: Names, context: Context, facts: Sequence[Facts]
) -> tuple[Domain, ...]:
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
        rejected = np.zeros(len(SCORES) - 1, dtype=np.int64)
        for each in facts:
            for place, number_of in each.counts.get(f"rejected {name}", {}).items():
                rejected[int(place)] += number_of
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
                quality=_histogram(judged, SCORES) if len(judged) or rejected.any() else None,
                rejected=Histogram(edges=SCORES, counts=tuple(rejected.tolist())),
                bands=names.bands.get(name, ()),
            )
        )
    return tuple(rows)


def mixture(context: Context, name: str, meta: StoreMeta, columns: dict[str, NDArray[Any]], names: Names) -> Mixture:
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
