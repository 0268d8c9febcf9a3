"""work/plan.json: what is read, in which units, by which models. Frozen by `prepare`; all steps follow it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from xgen.data.curate.steps.folders import fingerprint
from xgen.data.errors import StoreError
from xgen.data.meta import file_meta
from xgen.data.places import File
from xgen.data.units import Piece, Unit, plan_units
from xgen.spec.curate import Curate, Input

PLAN_FILE = "plan.json"
VERSION = 6  # raised when the same input gives another result
# Bytes of input files for a bucket of keys: keys take about as much as the compressed text.
_PLANNED = {
    "inputs", "max_document", "domains", "filters", "pii", "quality", "ensemble", "dedup", "decontaminate", "tokenizer",
    "engine", "seed",
}  # fmt: skip
_BUCKET_BYTES, _MIN_BUCKETS, _MAX_BUCKETS = 64 << 20, 4, 4096


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class PlannedUnit(_Frozen):
    """A unit of the input; `name` says what it reads, with sizes and times of the files."""

    number: int
    input: int  # of the spec's
    pieces: tuple[Piece, ...]
    name: str

    @property
    def unit(self) -> Unit:
        return Unit(self.pieces)


class PlannedInput(_Frozen):
    files: int
    ignored: dict[str, int]


class PlannedModel(_Frozen):
    path: str
    fingerprint: str


class PlannedFile(_Frozen):
    """A file that the steps follow from besides the units: its size and time of change, and its content."""

    bytes: int
    mtime_ns: int
    sha256: str

    @classmethod
    def of(cls, path: str) -> Self:
        """Raises StoreError for one that is not there."""
        try:
            stat = Path(path).stat()
            digest = file_meta(Path(path)).sha256
        except OSError as error:
            raise StoreError(path, error.strerror or str(error), "name a file that exists") from None
        return cls(bytes=stat.st_size, mtime_ns=stat.st_mtime_ns, sha256=digest)

    def check(self, path: str) -> None:
        """Raises StoreError where it has another content; which is looked at where size or time are others."""
        with suppress(OSError):
            if (stat := Path(path).stat()).st_size == self.bytes and stat.st_mtime_ns == self.mtime_ns:
                return
        if self.of(path).sha256 != self.sha256:
            raise StoreError(path, "has changed since the plan was made", "run it again from the step prepare")


class CuratePlan(_Frozen):
    """`files` are those that a step reads besides the units; `facts` fingerprints of them and of other corpora."""

    version: int
    spec: str  # fingerprint of what of the spec the steps before the mixtures follow from
    units: tuple[PlannedUnit, ...]
    inputs: tuple[PlannedInput, ...]
    num_buckets: int
    models: dict[str, PlannedModel]  # by role: domain, quality, ensemble
    files: dict[str, PlannedFile]
    facts: dict[str, str]

    def check(self) -> None:
        """Raises StoreError for a file that has changed."""
        for path, file in self.files.items():
            file.check(path)


def make_plan(job: Curate, models: dict[str, PlannedModel]) -> CuratePlan:
    """Look at the inputs. Raises StoreError for what is not there or cannot be read."""
    units: list[PlannedUnit] = []
    inputs: list[PlannedInput] = []
    total = 0
    for number, item in enumerate(job.inputs):
        found = plan_units([item.path])
        inputs.append(PlannedInput(files=len(found.files), ignored=found.ignored))
        total += found.num_bytes
        for unit in found.units:
            name = unit_name(unit, item, found.files_of(unit))
            units.append(PlannedUnit(number=len(units), input=number, pieces=unit.pieces, name=name))
    evaluation = [one.path for one in job.decontaminate.sets] if job.decontaminate else []
    lists = _lists(job)
    earlier = [f"{folder}/index.json" for folder in job.dedup.earlier]
    files = {path: PlannedFile.of(path) for path in (job.tokenizer, *evaluation, *lists, *earlier)}
    named = {"tokenizer": [job.tokenizer], "evaluation": evaluation, "lists": lists}
    facts = {name: fingerprint([files[path].sha256 for path in paths]) for name, paths in named.items()}
    facts |= {f"earlier {path}": files[path].sha256 for path in earlier}
    # A power of two: a corpus that grows a little keeps what was computed of it.
    buckets = min(max(1 << (total // _BUCKET_BYTES).bit_length(), _MIN_BUCKETS), _MAX_BUCKETS)
    return CuratePlan(
        version=VERSION,
        spec=spec_fingerprint(job),
        units=tuple(units),
        inputs=tuple(inputs),
        num_buckets=buckets,
        models=models,
        files=files,
        facts=facts,
    )


def spec_fingerprint(job: Curate) -> str:
    """Of all that has to be as it was when the plan was made; mixtures and copies may be asked for anew."""
    return fingerprint(job.model_dump(mode="json", include=_PLANNED))


def unit_name(unit: Unit, spec: Input, files: Sequence[File]) -> str:
    """What the documents of a unit follow from; data sets of the hub are known by their names."""
    return fingerprint([asdict(piece) for piece in unit.pieces], [asdict(file) for file in files], spec)


def read_plan(job: Curate) -> CuratePlan:
    """Raises StoreError where `prepare` has not run, or with another spec, or where a file has changed since."""
    work = Path(job.work_folder)
    try:
        plan = CuratePlan.model_validate_json((work / PLAN_FILE).read_bytes())
    except FileNotFoundError:
        raise StoreError(work, f"has no {PLAN_FILE}", "run the step prepare first") from None
    except ValidationError:
        raise StoreError(work / PLAN_FILE, "is of another version", "run the step prepare again") from None
    if plan.version != VERSION or plan.spec != spec_fingerprint(job):
        raise StoreError(work / PLAN_FILE, "is of another spec", "run the step prepare, or name another work folder")
    plan.check()
    return plan


def _lists(job: Curate) -> list[str]:
    lists = [one.url_lists for one in job.filters if one.url_lists]
    files = [(urls.domains, urls.urls, urls.words, urls.soft_words, urls.parts) for urls in lists]
    models = [one.language.model for one in job.filters if one.language and one.language.model]
    return [name for some in files for names in some for name in names] + models
