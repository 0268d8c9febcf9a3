"""A classifier on disk: model.json says what it is and how good, weights.npz holds its members' arrays.

A model with one member is a plain classifier, one with several an ensemble; there is no other difference.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from xgen.data.curate.classify.calibrate import Combination, log_softmax
from xgen.data.curate.classify.fasttext import SUFFIXES, FastText
from xgen.data.curate.classify.features import NGrams
from xgen.data.curate.classify.figures import Cut, Figures
from xgen.data.curate.classify.linear import Linear
from xgen.data.curate.classify.structure import STATISTICS
from xgen.data.curate.classify.trees import Trees
from xgen.data.curate.texts import Texts
from xgen.data.errors import StoreError
from xgen.data.meta import FileMeta, file_meta

VERSION = 1
MODEL_FILE, WEIGHTS_FILE = "model.json", "weights.npz"
GOOD, BAD = "good", "bad"  # labels of a quality model
ModelKind = Literal["quality", "domain"]
_AGAIN = "train it again: xgen data train-classifier"


class Classifier(Protocol):
    """What the engine needs of one, ours or fastText's."""

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def fingerprint(self) -> str: ...

    def logits(self, texts: Texts) -> NDArray[np.float64]:
        """[documents, labels], calibrated; the softmax of a row gives the probabilities."""
        ...


def probabilities(logits: NDArray[np.float64]) -> NDArray[np.float32]:
    shares: NDArray[np.float32] = np.exp(log_softmax(logits)).astype(np.float32)
    return shares


def log_odds(logits: NDArray[np.float64], label: int = 0) -> NDArray[np.float32]:
    """Of `label` against all others [documents]: a score that does not saturate; > 0 where it is more likely than not.

    Of a quality model label 0 is the good one.
    """
    rest = np.delete(logits, label, axis=1)
    top = rest.max(axis=1, keepdims=True)
    others = top[:, 0] + np.log(np.exp(rest - top).sum(axis=1))
    odds: NDArray[np.float32] = (logits[:, label] - others).astype(np.float32)
    return odds


class _Meta(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NGramsMeta(_Meta):
    kind: Literal["words", "chars"]
    low: int
    high: int
    bits: int


class MemberMeta(_Meta):
    """A linear model of n-grams, or trees over statistics where there are none; `figures` are of it alone."""

    name: str
    ngrams: NGramsMeta | None
    scale: float
    figures: Figures


class SeedMeta(_Meta):
    """Documents of one label: what came, and where it went. `digest` names exactly these, whatever their order."""

    documents: int
    bytes: int
    duplicates: int  # equal to another of this label: left out
    ambiguous: int  # equal to one of another label: left out
    trained: int
    calibrated: int
    held_out: int
    digest: str


class ModelMeta(_Meta):
    version: int
    kind: ModelKind
    labels: tuple[str, ...]
    biases: tuple[float, ...]
    members: tuple[MemberMeta, ...]
    statistics: tuple[str, ...]  # of structure, in the order that trees know them by
    seeds: dict[str, SeedMeta]
    figures: Figures  # on documents held out, of all members together
    cuts: tuple[Cut, ...] = ()  # of a quality model
    bands: tuple[float, ...] = ()  # edges of log-odds: equal shares of a sample of the corpus
    recipe: dict[str, str | int | float]
    made_with: dict[str, str]
    files: dict[str, FileMeta]


@dataclass(frozen=True)
class Model:
    meta: ModelMeta
    members: tuple[Linear | Trees, ...]
    fingerprint: str

    @property
    def labels(self) -> tuple[str, ...]:
        return self.meta.labels

    def logits(self, texts: Texts) -> NDArray[np.float64]:
        combination = Combination(tuple(member.scale for member in self.meta.members), self.meta.biases)
        return combination([member.logits(texts) for member in self.members])


def load_classifier(path: Path, first: str | None = None) -> Classifier:
    """A folder of train-classifier, or a fastText file whose label `first` goes to column 0. Raises StoreError."""
    return FastText.open(path, first) if path.suffix in SUFFIXES else read_model(path)


def write_model(folder: Path, meta: ModelMeta, members: tuple[Linear | Trees, ...]) -> Model:
    """Write both files into an empty folder; the same model gives the same bytes."""
    arrays: dict[str, NDArray[np.float32] | NDArray[np.uint8]] = {}
    for about, member in zip(meta.members, members, strict=True):
        names = ("weights", "bias") if isinstance(member, Linear) else ("columns", "bounds", "values")
        arrays |= {f"{about.name}.{name}": getattr(member, name) for name in names}
    weights = folder / WEIGHTS_FILE
    with zipfile.ZipFile(weights, "x", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            # The time of an entry is fixed: it would be in the bytes.
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), buffer.getvalue(), zipfile.ZIP_DEFLATED, 6)
    meta = meta.model_copy(update={"files": {WEIGHTS_FILE: file_meta(weights)}})
    text = meta.model_dump_json(indent=1).encode() + b"\n"
    (folder / MODEL_FILE).write_bytes(text)
    return Model(meta, members, _fingerprint(text))


def read_model(folder: Path) -> Model:
    """Raises StoreError where there is no model, or its files are not those that it was written with."""
    meta, fingerprint = read_model_meta(folder)
    for name, file in meta.files.items():
        if not (folder / name).is_file() or file_meta(folder / name) != file:
            raise StoreError(folder / name, "is not the file that the model was written with", _AGAIN)
    if meta.statistics != STATISTICS and any(member.ngrams is None for member in meta.members):
        raise StoreError(folder, "was trained on other statistics of structure than this xgen takes", _AGAIN)
    members: list[Linear | Trees] = []
    with np.load(folder / WEIGHTS_FILE, allow_pickle=False) as arrays:
        for about in meta.members:
            if about.ngrams is None:
                members.append(Trees(*(arrays[f"{about.name}.{key}"] for key in ("columns", "bounds", "values"))))
            else:
                grams = NGrams(**about.ngrams.model_dump())
                members.append(Linear(grams, arrays[f"{about.name}.weights"], arrays[f"{about.name}.bias"]))
    return Model(meta, tuple(members), fingerprint)


def read_model_meta(folder: Path) -> tuple[ModelMeta, str]:
    """model.json and the model's fingerprint. Raises StoreError."""
    file = folder / MODEL_FILE
    if not file.is_file():
        raise StoreError(folder, f"is no classifier: it has no {MODEL_FILE}", _AGAIN)
    text = file.read_bytes()
    try:
        meta = ModelMeta.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise StoreError(file, f"{'.'.join(map(str, first['loc']))}: {first['msg']}", _AGAIN) from None
    if meta.version != VERSION:
        raise StoreError(file, f"version {meta.version} is not {VERSION}, the one that this xgen reads", _AGAIN)
    return meta, _fingerprint(text)


def _fingerprint(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:16]
