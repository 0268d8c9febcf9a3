"""What the report says of the corpus: domains, and the mixtures that were written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow.compute
from numpy.typing import NDArray

from xgen.data.curate.report_model import Copies, Domain, Histogram, Mixture, PlanRow
from xgen.data.curate.steps.balance import read_mixture
from xgen.data.curate.steps.deal import tally_of
from xgen.data.curate.steps.kept import Kept, origins_of, read_table
from xgen.data.curate.steps.ledger import SCORES, Facts, score_bins
from xgen.data.curate.tally import LENGTHS, SIZE_BINS, length_bins
from xgen.data.store import StoreMeta

_COLUMNS = ("domain", "source", "licence", "language", "score", "bytes", "num_tokens")


class _Sums:
    """Of a domain, while units are counted."""

    def __init__(self) -> None:
        self.documents = self.bytes = self.tokens = 0
        self.origins: Counter[tuple[str, str]] = Counter()
        self.languages: Counter[str] = Counter()
        self.lengths = np.zeros(len(LENGTHS) - 1, dtype=np.int64)
        self.scores = np.zeros(len(SCORES) - 1, dtype=np.int64)
        self.rejected = np.zeros(len(SCORES) - 1, dtype=np.int64)

    def add(self, table: pyarrow.Table) -> None:
        num_tokens, scores = table["num_tokens"].to_numpy(), table["score"].to_numpy()
        self.documents += len(table)
        self.bytes += int(table["bytes"].to_numpy().sum())
        self.tokens += int(num_tokens.sum())
        codes, pairs = origins_of(table)
        self.origins.update(dict(zip(pairs, np.bincount(codes).tolist(), strict=True)))
        self.languages.update({row["values"]: row["counts"] for row in table["language"].value_counts().to_pylist()})
        self.lengths += np.bincount(length_bins(num_tokens), minlength=len(self.lengths))
        self.scores += np.bincount(score_bins(scores[~np.isnan(scores)]), minlength=len(self.scores))


def domains(kept: Kept, facts: Sequence[Facts]) -> tuple[Domain, ...]:
    sums = {name: _Sums() for name in kept.names.domains}
    for name, own in sums.items():
        for each in facts:
            for place, number in each.counts.get(f"rejected {name}", {}).items():
                own.rejected[int(place)] += number
    for number in range(len(kept.names.documents)):
        table = read_table(kept.context, number, _COLUMNS)
        for name in table["domain"].unique().to_pylist():
            sums[name].add(table.filter(pyarrow.compute.equal(table["domain"], name)))
    rows = []
    for name, own in sums.items():
        sources, licences = Counter[str](), Counter[str]()
        for (source, licence), documents in sorted(own.origins.items()):
            sources[source] += documents
            licences[licence] += documents
        rows.append(
            Domain(
                name=name,
                documents=own.documents,
                bytes=own.bytes,
                tokens=own.tokens,
                sources=dict(sources),
                licences=dict(licences),
                languages={language: number for language, number in sorted(own.languages.items()) if language},
                lengths=_histogram(LENGTHS, own.lengths),
                quality=_histogram(SCORES, own.scores) if own.scores.any() or own.rejected.any() else None,
                rejected=_histogram(SCORES, own.rejected),
                bands=kept.names.bands.get(name, ()),
            )
        )
    return tuple(rows)


def mixture(kept: Kept, name: str, meta: StoreMeta) -> Mixture:
    planned = read_mixture(kept.context, name)
    tally = tally_of(kept.context, name)
    names = kept.names
    rows = [
        PlanRow(
            domain=names.domains[domain], source=names.origins[source][0], band=band, size=SIZE_BINS[size],
            documents=documents, tokens=tokens, taken=taken, copies=copies, planned=tokens_planned,
        )
        for domain, source, band, size, documents, tokens, taken, copies, tokens_planned in tally.rows.tolist()
    ]  # fmt: skip
    return Mixture(
        name=name,
        budget=planned.budget,
        planned=planned.planned,
        written=meta.num_tokens,
        documents=sum(row.taken for row in rows),
        store=name,
        fingerprint=meta.fingerprint,
        quotas=planned.quotas,
        rows=tuple(rows),
        copies=tuple(Copies(copies=number, documents=count) for number, count in tally.copies.tolist()),
        lengths={
            domain: _histogram(LENGTHS, own)
            for domain, own in zip(names.domains, tally.lengths, strict=True)
            if own.any()
        },
        unmet=planned.unmet,
    )


def _histogram(edges: tuple[float, ...], counts: NDArray[np.int64]) -> Histogram:
    return Histogram(edges=edges, counts=tuple(counts.tolist()))
