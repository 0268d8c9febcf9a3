"""The kind `curate`: raw text in, token stores of exact mixtures out."""

from __future__ import annotations

import re
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from xgen.spec.base import Count, Strict, nearest
from xgen.spec.classifiers import Domains, Quality
from xgen.spec.filters import C4, FineWeb, GopherQuality, GopherRepetition, Language, Lines, Pii, Share, Urls
from xgen.spec.job import Array, Job, Resources
from xgen.spec.mixtures import Mixture
from xgen.spec.units import Bytes

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class Keys(Strict):
    """Where a record has what."""

    text: str = "text"
    id: str | None = Field(default=None, description="records of an input with an id that was there are left out")
    url: str | None = None
    domain: str | None = None
    source: str | None = None
    licence: str | None = None


class Input(Strict):
    path: str = Field(description="file, folder, URL or hf:NAME[:SPLIT], as `xgen data build --input` takes them")
    domain: str | None = Field(default=None, description="of all records; default: their key, else `domains`")
    source: str | None = Field(default=None, description="name of the collection; default: the file's or folder's")
    licence: str = "unknown"
    keys: Keys = Field(default_factory=Keys)


class Filters(Strict):
    """Filters for some domains, in this order; those that are not named do not run. `{}` has the published defaults."""

    domains: list[str] | None = Field(default=None, description="default: all that no entry before this one names")
    url_lists: Urls | None = None
    language: Language | None = None
    lines: Lines | None = None
    gopher_repetition: GopherRepetition | None = None
    gopher_quality: GopherQuality | None = None
    c4: C4 | None = None
    fineweb: FineWeb | None = None


class CommonLines(Strict):
    """Lines (or paragraphs) that many documents share are cut: menus, licences. Each duplicate counts once."""

    unit: Literal["line", "paragraph"] = "line"
    min_words: Count = Field(default=4, ge=1, description="shorter ones stay")
    max_documents: Count = Field(default=10, ge=1, description="what more documents have is cut from all of them")
    except_domains: list[str] = Field(default_factory=list, description="code repeats its lines by nature")


class Dedup(Strict):
    """Of documents with the same words, or nearly the same, the first one stays; how many there were is its frequency.

    Documents meet where the hashes of a band agree, and are duplicates where their sketches say `similarity`.
    """

    ngram: Count = Field(default=5, ge=1, description="words")
    bands: Count = Field(default=20, ge=1)
    rows: Count = Field(default=6, ge=1, description="hashes of a band")
    similarity: Share = 0.55
    lines: CommonLines | None = None
    earlier: list[str] = Field(default_factory=list, description="`index` folders of corpora that were curated before")
    index: bool = Field(default=False, description="write OUT/index: a later corpus leaves out what is in this")


class EvaluationSet(Strict):
    name: str
    path: str = Field(description=".jsonl[.zst|.gz], an item a line")
    keys: list[str] = Field(min_length=1, description="of its texts: question, choices, answer")


class Decontaminate(Strict):
    """Documents that hold an item of an evaluation set go."""

    sets: list[EvaluationSet] = Field(min_length=1)
    ngram: Count = Field(default=13, ge=1, description="words in a row that both have")
    min_words: Count = Field(default=8, ge=1, description="shorter items would be found everywhere, and are not sought")
    min_share: Share = Field(default=0.0, description="of an item's n-grams that a document has to have")


class Frequency(Strict):
    """From the size of a cluster of duplicates to the copies of the one that stays. The rule alone may stand for all.

    fineweb2: {1: 1, 2: 2, 3: 3, 5: 5, 100: 8, 1000: 1}, each from its size on; rehydrate: estimated from what the
    filters removed of each size (FineWeb2, misc/rehydration); none: one copy.
    """

    rule: Literal["none", "fineweb2", "rehydrate", "table"] = "none"
    table: dict[int, Count] = Field(default_factory=dict, description="{SIZE: COPIES}, each from its size on")
    max_copies: Count = Field(default=10, ge=1, description="of rehydrate")
    min_count: Count = Field(default=1000, ge=1, description="of rehydrate: documents in a bin of sizes")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: object) -> object:
        if isinstance(value, str):
            return {"rule": value}
        if isinstance(value, dict) and "table" in value and "rule" not in value:
            return value | {"rule": "table"}
        return value

    @model_validator(mode="after")
    def _table_where_it_counts(self) -> Self:
        if (self.rule == "table") != bool(self.table):
            raise ValueError("a table goes with rule: table; write table: {1: 1, 2: 2}")
        if self.table and 1 not in self.table:
            raise ValueError("table: single documents (size 1) are missing; write {1: 1, …}")
        return self


class Curate(Job):
    """Curate text: filters, duplicates, evaluation leaks, quality, copies by frequency, exact mixtures."""

    kind: Literal["curate"]
    out: str = Field(description="folder of the stores, the report and the index; appears whole")
    work: str | None = Field(default=None, description="folder of intermediate results; default: OUT.work")
    replace: bool = Field(default=False, description="a finished corpus of another spec in `out` makes room")
    inputs: list[Input] = Field(min_length=1)
    max_document: Bytes = Field(default=32 << 20, description="longer records are left out, and listed")
    domains: Domains = Field(default_factory=Domains)
    filters: list[Filters] = Field(default_factory=list, description="of each document the first entry for its domain")
    pii: Pii | None = Field(default_factory=Pii, description="null: personal data stays")
    quality: Quality | None = Field(default=None, description="the fast model, for everything")
    ensemble: Quality | None = Field(default=None, description="a second model, for what is left after the first")
    dedup: Dedup = Field(default_factory=Dedup)
    decontaminate: Decontaminate | None = None
    tokenizer: str = Field(description="a tokenizer.json")
    engine: Literal["auto", "tokenizers"] = Field(default="auto", description="auto: tiktoken where it gives the same")
    frequency: Frequency = Field(default_factory=Frequency)
    mixtures: dict[str, Mixture] = Field(min_length=1)
    array: Array = Field(default_factory=lambda: Array(shards=1), description="of the steps that are job arrays")
    single: Resources | None = Field(default=None, description="of the other steps; default: `resources`")
    seed: Count = Field(default=0, ge=0, description="of the order, and of which documents fill a budget")

    @model_validator(mode="before")
    @classmethod
    def _without_gpus(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        value = dict(value)
        for key in ("resources", "single"):
            if isinstance(own := value.get(key), dict):
                value[key] = {"gpus_per_node": 0} | own
        if isinstance(single := value.get("single"), dict) and isinstance(base := value.get("resources"), dict):
            value["single"] = base | single
        return value

    @field_validator("mixtures")
    @classmethod
    def _mixtures_are_folders(cls, value: dict[str, Mixture]) -> dict[str, Mixture]:
        if bad := next((name for name in value if not _NAME.fullmatch(name) or name == "index"), None):
            raise ValueError(f"{bad!r} is no name of a folder; write letters, digits, '_', '.' and '-', and not index")
        return value

    @field_validator("inputs")
    @classmethod
    def _inputs_differ(cls, value: list[Input]) -> list[Input]:
        for number, item in enumerate(value):
            if (first := value.index(item)) < number:
                raise ValueError(f"[{number}] is [{first}] again: write it once; copies are made by `frequency`")
        return value

    @model_validator(mode="after")
    def _one_task_a_shard(self) -> Self:
        for name, resources in (("resources", self.resources), ("single", self.single)):
            if resources and (resources.nodes > 1 or resources.gpus_per_node > 1):
                raise ValueError(
                    f"{name}: a shard is one task; write nodes: 1, gpus_per_node: 0, and more array.shards"
                )
        return self

    @model_validator(mode="after")
    def _domains_are_known(self) -> Self:
        names = self.domain_names
        said = [(f"filters[{i}].domains", name) for i, one in enumerate(self.filters) for name in one.domains or ()]
        for key, mixture in self.mixtures.items():
            said += [(f"mixtures.{key}.balance.weights", name) for name in mixture.balance.weights]
            said += [(f"mixtures.{key}.max_epochs_of", name) for name in mixture.max_epochs_of]
        for key, name in said:
            if names and name not in names:
                raise ValueError(f"{key}: {name!r} is no domain of the inputs; {nearest(name, names)}")
        return self

    @model_validator(mode="after")
    def _bands_need_a_score(self) -> Self:
        banded = next((name for name, mixture in self.mixtures.items() if mixture.min_band), None)
        if banded and not (self.quality or self.ensemble):
            raise ValueError(f"mixtures.{banded}.min_band: no document has a band without `quality`; name a model")
        return self

    @property
    def domain_names(self) -> frozenset[str]:
        """All that a record can be of; empty where only the records or a model say it."""
        known = {item.domain for item in self.inputs} | set(self.domains.rules.values()) | {self.domains.other}
        model = self.domains.model
        if any(item.keys.domain for item in self.inputs) or (model and not model.labels):
            return frozenset()
        return frozenset({str(name) for name in known - {None}} | set(model.labels if model else ()))

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps in their order, each a job."""
        lines = ("lines", "common") if self.dedup.lines else ()
        return ("prepare", "tag", "match", "cluster", *lines, "select", "balance", "deal", "shuffle", "assemble")

    @property
    def jobs(self) -> tuple[tuple[str, Resources], ...]:
        single = self.single or self.resources
        return tuple((step, single if step in SINGLE_STEPS else self.resources) for step in self.steps)

    def array_of(self, stage: int) -> Array | None:
        return None if self.steps[stage] in SINGLE_STEPS else self.array

    @property
    def work_folder(self) -> str:
        return self.work or f"{self.out}.work"

    @property
    def reads(self) -> dict[str, str]:
        """All files and folders that the job reads, by key of the spec; data sets of the hub and URLs are none."""
        paths = {f"inputs[{i}].path": one.path for i, one in enumerate(self.inputs)}
        paths["tokenizer"] = self.tokenizer
        for key, model in (
            ("domains.model", self.domains.model),
            ("quality", self.quality),
            ("ensemble", self.ensemble),
        ):
            if model and model.path:
                paths[f"{key}.path"] = model.path
            for label, some in (model.labels if model else {}).items():
                paths |= {f"{key}.labels.{label}[{i}]": path for i, path in enumerate(some)}
        paths |= {f"dedup.earlier[{i}]": path for i, path in enumerate(self.dedup.earlier)}
        for name, mixture in self.mixtures.items():
            if mixture.balance.regmix is not None:
                paths[f"mixtures.{name}.balance.regmix"] = mixture.balance.regmix
        for i, one in enumerate(self.decontaminate.sets if self.decontaminate else ()):
            paths[f"decontaminate.sets[{i}].path"] = one.path
        for i, filters in enumerate(self.filters):
            for name in ("domains", "urls", "words", "soft_words", "parts") if filters.url_lists else ():
                some = getattr(filters.url_lists, name)
                paths |= {f"filters[{i}].url_lists.{name}[{j}]": path for j, path in enumerate(some)}
            if filters.language and filters.language.model:
                paths[f"filters[{i}].language.model"] = filters.language.model
        return {key: path for key, path in paths.items() if not path.startswith("hf:") and "://" not in path}


SINGLE_STEPS = ("prepare", "cluster", "balance", "assemble")
