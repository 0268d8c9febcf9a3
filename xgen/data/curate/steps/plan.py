"""work/plan.json: what is read, in which units, by which models. Frozen by `prepare`; all steps follow it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from xgen.data.curate.steps.folders import fingerprint
from xgen.data.errors import StoreError
from xgen.data.units import Piece, Unit, plan_units
from xgen.spec.curate import Curate, Input

PLAN_FILE = "plan.json"
VERSION = 2  # raised when the same input gives another result
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


class CuratePlan(_Frozen):
    """`facts` has a fingerprint of each file, model or folder that a step reads besides the units."""

    version: int
    spec: str  # fingerprint of what of the spec the steps before the mixtures follow from
    units: tuple[PlannedUnit, ...]
    inputs: tuple[PlannedInput, ...]
    num_buckets: int
    models: dict[str, PlannedModel]  # by role: domain, quality, ensemble
    facts: dict[str, str]


def make_plan(job: Curate, models: dict[str, PlannedModel]) -> CuratePlan:
    """Look at the inputs. Raises StoreError for what is not there or cannot be read."""
    units: list[PlannedUnit] = []
    inputs: list[PlannedInput] = []
    total = 0
    for number, item in enumerate(job.inputs):
        found = plan_units([item.path])
        inputs.append(PlannedInput(files=len(found.files), ignored=found.ignored))
        total += sum(Path(file).stat().st_size for file in found.files)
        for unit in found.units:
            name = unit_name(unit, item)
            units.append(PlannedUnit(number=len(units), input=number, pieces=unit.pieces, name=name))
    facts = {"tokenizer": sha256([Path(job.tokenizer)])}
    if job.decontaminate:
        facts["evaluation"] = sha256(Path(one.path) for one in job.decontaminate.sets)
    facts["lists"] = sha256(_lists(job))
    for folder in job.dedup.earlier:
        facts[f"earlier {folder}"] = sha256([Path(folder) / "index.json"])
    # A power of two: a corpus that grows a little keeps what was computed of it.
    buckets = min(max(1 << (total // _BUCKET_BYTES).bit_length(), _MIN_BUCKETS), _MAX_BUCKETS)
    return CuratePlan(
        version=VERSION,
        spec=spec_fingerprint(job),
        units=tuple(units),
        inputs=tuple(inputs),
        num_buckets=buckets,
        models=models,
        facts=facts,
    )


def spec_fingerprint(job: Curate) -> str:
    """Of all that has to be as it was when the plan was made; mixtures and copies may be asked for anew."""
    return fingerprint(job.model_dump(mode="json", include=_PLANNED))


def unit_name(unit: Unit, spec: Input) -> str:
    """What the documents of a unit follow from."""
    return fingerprint([asdict(piece) for piece in unit.pieces], file_facts(unit), spec)


def file_facts(unit: Unit) -> list[tuple[str, int, int]]:
    """Path, size and time of change of the files of a unit; data sets of the hub are known by their names."""
    paths = dict.fromkeys(piece.path for piece in unit.pieces if piece.kind != "hub")
    return [(path, (stat := Path(path).stat()).st_size, stat.st_mtime_ns) for path in paths]


def sha256(files: Iterable[Path]) -> str:
    """Of the content of all. Raises StoreError for one that is not there."""
    digest = hashlib.sha256()
    for file in files:
        try:
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        except OSError as error:
            raise StoreError(file, error.strerror or str(error), "name a file that exists") from None
    return digest.hexdigest()[:16]


def read_plan(job: Curate) -> CuratePlan:
    """Raises StoreError where `prepare` has not run, or with another spec."""
    work = Path(job.work_folder)
    try:
        plan = CuratePlan.model_validate_json((work / PLAN_FILE).read_bytes())
    except FileNotFoundError:
        raise StoreError(work, f"has no {PLAN_FILE}", "run the step prepare first") from None
    except ValidationError:
        raise StoreError(work / PLAN_FILE, "is of another version", "run the step prepare again") from None
    if plan.version != VERSION or plan.spec != spec_fingerprint(job):
        raise StoreError(work / PLAN_FILE, "is of another spec", "run the step prepare, or name another work folder")
    return plan


def _lists(job: Curate) -> Sequence[Path]:
    lists = [one.url_lists for one in job.filters if one.url_lists]
    files = [(urls.domains, urls.urls, urls.words, urls.soft_words, urls.parts) for urls in lists]
    models = [one.language.model for one in job.filters if one.language and one.language.model]
    return [Path(name) for some in files for names in some for name in names] + [Path(name) for name in models]
