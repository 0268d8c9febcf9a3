"""report.json: what every step of a curation kept and dropped, and why. The HTML report draws nothing else.

Times are not in it: the same corpus and spec give the same bytes. All lists have an order that the content fixes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

VERSION = 2
REPORT_FILE = "report.json"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class Count(_Frozen):
    """Documents, and bytes of their text."""

    documents: int = 0
    bytes: int = 0


def sum_of(counts: Iterable[Count]) -> Count:
    every = list(counts)
    return Count(documents=sum(one.documents for one in every), bytes=sum(one.bytes for one in every))


class Sample(_Frozen):
    """A document to read. `document` is its number, by which the tables in the folder of intermediate files know it."""

    document: int
    domain: str
    source: str
    value: float | None  # what the rule measured; None where it measures nothing
    text: str  # an excerpt
    id: str = ""
    place: str = ""  # "FILE: line N", or a page's file
    other: int | None = None  # of a duplicate: the document before it; of a leak: the item of the evaluation set
    other_text: str = ""  # an excerpt of that


class Reason(_Frozen):
    """Documents that one rule dropped under one threshold, and some of them."""

    name: str  # "gopher_quality.min_words"
    bound: float | None  # the threshold, by which domains may differ; None where there is none
    dropped: Count
    by_domain: dict[str, Count]
    samples: tuple[Sample, ...]


class Flow(_Frozen):
    """Documents: taken = kept + dropped. Bytes: taken = kept + dropped + cut.

    `dropped` has the bytes that came in; `cut` what was taken out of (or, below 0, put into) documents that were kept.
    """

    taken: Count = Count()
    kept: Count = Count()
    dropped: Count = Count()
    cut: int = 0

    @property
    def lost(self) -> Count:
        """What was taken and is nowhere: nothing, unless a step counts wrongly."""
        told = sum_of((self.kept, self.dropped))
        return Count(documents=self.taken.documents - told.documents, bytes=self.taken.bytes - told.bytes - self.cut)


class Step(Flow):
    """One row of the funnel, with the rules that dropped something (the most frequent first).

    `name` is read, one of the filters, quality, ids, earlier, exact, near, leaks, common_lines or ensemble.
    """

    name: str
    by_domain: dict[str, Flow]
    reasons: tuple[Reason, ...]


class Quarantined(_Frozen):
    """Records that were put aside, by reason (what differs from record to record is cut off)."""

    reason: str
    records: int
    places: tuple[str, ...]  # some: "FILE: line N: the whole reason"
    read: bool = False  # they are in the funnel, as documents that `ids` dropped, or a filter before it


class Input(_Frozen):
    """An entry of the spec's `inputs`."""

    path: str
    files: int
    ignored: dict[str, int]  # files of kinds that are not read, by suffix
    units: int
    read: Count
    quarantined: int


class Histogram(_Frozen):
    """counts[i] from edges[i] to before edges[i + 1]; the first and the last hold what lies beyond."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


class SizeBin(_Frozen):
    """Clusters of `size` documents up to the next bin's, of all that was read."""

    size: int
    clusters: int
    documents: int


class Slice(_Frozen):
    """Some of the documents, in the order of reading. Of those that no filter dropped: `first` of a cluster, or not."""

    read: int
    first: int
    exact: int
    near: int
    earlier: int


class Dedup(_Frozen):
    """How documents were compared, and what was found. `curve` has (similarity, probability to be compared)."""

    ngram: int
    bands: int
    rows: int
    threshold: float
    curve: tuple[tuple[float, float], ...]
    exact: int  # documents with the words of one before them
    near: int  # documents like one before them
    earlier: int  # documents that an earlier corpus has
    unplaced: int  # records of keys with more than a thousand different documents, which were not compared with all
    clusters: int
    largest: int
    sizes: tuple[SizeBin, ...]
    slices: tuple[Slice, ...]


class RateBin(_Frozen):
    """Of the rehydration rule: documents in clusters of `size` up to the next bin's, one a cluster."""

    size: int
    documents: int
    removed: int
    rate: float
    low: float
    high: float
    copies: int


class Frequency(_Frozen):
    """From cluster size to copies: the table, what it rests on, and that it was applied."""

    rule: str
    table: dict[int, int]  # from this size on: copies
    documents: tuple[int, ...]  # that were kept, of each size in the order of `table`
    bins: tuple[RateBin, ...]
    rate: float | None  # of all documents
    note: str


class EvaluationLeaks(_Frozen):
    """An evaluation set: `leaked` of its items stand in some document, which was dropped."""

    name: str
    items: int
    short: int  # items that are too short to be looked for
    leaked: int
    documents: int


class CommonLine(_Frozen):
    text: str
    documents: int  # that have it, of those chosen


class Lines(_Frozen):
    """Lines that many documents share, cut."""

    unit: str  # line, paragraph
    max_documents: int
    frequent: int  # different lines
    cut: int
    bytes: int
    documents: int  # that lost some
    samples: tuple[CommonLine, ...]  # those that most documents have


class Classifier(_Frozen):
    """A classifier that was used, with its figures on documents that were held out (none for a fastText model)."""

    role: str  # quality, ensemble, domain
    fingerprint: str
    labels: tuple[str, ...]
    documents: int
    accuracy: float | None
    log_loss: float | None
    calibration_error: float | None
    auc: dict[str, float]


class Domain(_Frozen):
    """What is kept of a domain, each document once. `bands` are the lower edges (log-odds) of its quality bands."""

    name: str
    documents: int
    bytes: int
    tokens: int
    sources: dict[str, int]  # documents
    licences: dict[str, int]  # documents
    languages: dict[str, int]  # documents, of those whose language was asked for
    lengths: Histogram  # tokens
    quality: Histogram | None  # log-odds; None where no model was asked
    rejected: Histogram  # log-odds for which models dropped documents
    bands: tuple[float, ...]


class Quota(_Frozen):
    """What a domain (or its long or short part) was asked for, and gives. Tokens."""

    domain: str
    part: str
    documents: int
    supply: int
    cap: int
    wanted: int
    tokens: int
    epochs: float


class PlanRow(_Frozen):
    """Documents of one domain, source, band and cluster size, as they are and as the mixture takes them."""

    domain: str
    source: str
    band: int
    size: int
    documents: int
    tokens: int
    taken: int  # documents with a copy
    copies: int
    planned: int  # tokens


class Copies(_Frozen):
    """Documents that a mixture has so many copies of."""

    copies: int
    documents: int


class Mixture(_Frozen):
    """A mixture: the plan, and the store that was written. `written` was counted in the store."""

    name: str
    budget: int
    planned: int
    written: int
    documents: int  # with copies
    store: str  # folder, below this one
    fingerprint: str
    quotas: tuple[Quota, ...]
    rows: tuple[PlanRow, ...]
    copies: tuple[Copies, ...]
    lengths: dict[str, Histogram]  # by domain, tokens of what is written, copies counted
    unmet: tuple[str, ...]


class Report(_Frozen):
    version: int = VERSION
    name: str
    recipe: str
    xgen: str
    inputs: tuple[Input, ...]
    quarantine: tuple[Quarantined, ...]
    steps: tuple[Step, ...]
    pii: dict[str, int]  # what was masked, by kind
    dedup: Dedup
    frequency: Frequency
    leaks: tuple[EvaluationLeaks, ...]
    lines: Lines | None
    classifiers: tuple[Classifier, ...]
    domains: tuple[Domain, ...]
    mixtures: tuple[Mixture, ...]


def read_report(out: Path) -> Report:
    """The report of a curated corpus."""
    return Report.model_validate_json((out / REPORT_FILE).read_bytes())
