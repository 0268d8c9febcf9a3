"""Which language a text is in, and whether it is one of those that are wanted.

Two identifiers. `NaiveBayes` runs the published model of langid.py (Lui and Baldwin 2012; py3langid, BSD: 142 labels,
naive Bayes over byte n-grams that an automaton finds) over raw bytes; it needs the package, which has the model, and
not its code. `FastText` of xgen.data.curate.classify takes the files lid.176.bin, GlotLID and OpenLID.

Scores are probabilities over all labels of the model. py3langid takes the square root of the length as the softmax's
temperature; only its beginning counts for a long text (`sample_bytes`). Against py3langid: the text is not brought to
Unicode's form NFC first, and only texts in capital letters of ASCII are made small.
"""

from __future__ import annotations

import importlib.util
import io
import lzma
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
from numba import njit
from numpy.typing import NDArray

from xgen.data.curate.classify.fasttext import FastText
from xgen.data.curate.filters.thresholds import Language
from xgen.data.curate.filters.trace import Batch, Rule, Trace, at_least
from xgen.data.curate.texts import Texts
from xgen.data.errors import StoreError

_FIX = "run pip install 'py3langid>=0.4,<0.5', or name a fastText model"
UNKNOWN = "und"  # of a text in which there is nothing to tell by


class Identifier(Protocol):
    @property
    def labels(self) -> tuple[str, ...]: ...

    def logits(self, texts: Texts) -> NDArray[np.float64]:
        """[documents, labels]: logarithms of what is proportional to a probability."""
        ...


@dataclass(frozen=True)
class LanguageFilter:
    identifier: Identifier
    thresholds: Language
    name: str = "language"

    @classmethod
    def open(cls, thresholds: Language) -> LanguageFilter:
        """Raises StoreError when the model is not there, or has no such language."""
        model = thresholds.model
        identifier: Identifier = NaiveBayes.open() if model is None else FastText.open(Path(model))
        unknown = sorted(set(thresholds.languages) - set(identifier.labels))
        if unknown:
            known = ", ".join(sorted(identifier.labels))
            raise StoreError(model or "py3langid", f"does not know {', '.join(unknown)}", f"name some of {known}")
        return cls(identifier, thresholds)

    def check(self, batch: Batch) -> Trace:
        limit = self.thresholds
        logits = self.identifier.logits(_beginnings(batch.texts, limit.sample_bytes))
        shares = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
        shares /= shares.sum(axis=1, keepdims=True)
        best = shares.argmax(axis=1)
        score = shares[np.arange(len(best)), best]
        language = np.where(score * len(self.identifier.labels) > 3, np.array(self.identifier.labels)[best], UNKNOWN)
        wanted = np.isin(language, limit.languages) if limit.languages else np.ones(len(best), dtype=np.bool_)
        measures = {"wanted": wanted.astype(np.float64), "score": score}
        rules = [Rule("languages", "wanted", least=1), *at_least("min_score", "score", limit.min_score)]
        return Trace.of(self.name, measures, rules, labels={"language": language})


@dataclass(frozen=True)
class NaiveBayes:
    """The model of py3langid, in arrays that the kernel takes."""

    labels: tuple[str, ...]
    prior: NDArray[np.float32]  # [labels]
    weights: NDArray[np.float32]  # [features, labels]
    moves: NDArray[np.uint32]  # [rows * 256]: the next state after each byte
    rows: NDArray[np.uint16]  # [states]: states with the same moves share a row
    features: NDArray[np.int32]  # [states]: the n-gram that ends here, or -1

    @classmethod
    def open(cls) -> NaiveBayes:
        """100 MB, half a second, once a process. Raises StoreError where the package is not installed."""
        return _load()

    def logits(self, texts: Texts) -> NDArray[np.float64]:
        out: NDArray[np.float64] = _score(
            texts.data, texts.offsets, self.prior, self.weights, self.moves, self.rows, self.features
        )
        for label in {label for label in self.labels if self.labels.count(label) > 1}:  # one language, two scripts
            same = [column for column, name in enumerate(self.labels) if name == label]
            out[:, same[0]] = np.logaddexp.reduce(out[:, same], axis=1)
            out[:, same[1:]] = -np.inf
        return out


@cache
def _load() -> NaiveBayes:
    package = importlib.util.find_spec("py3langid")
    if package is None or not package.submodule_search_locations:
        raise StoreError("py3langid", "is not installed, and languages are told by its model", _FIX)
    file = Path(package.submodule_search_locations[0]) / "data/model.npz.xz"
    try:
        with np.load(io.BytesIO(lzma.decompress(file.read_bytes())), allow_pickle=False) as found:
            return NaiveBayes(
                tuple(found["classes"].tolist()),
                found["pc"].astype(np.float32),
                found["ptc"].astype(np.float32),
                found["nextmove"].astype(np.uint32),
                found["nextmove_row"].astype(np.uint16),
                found["out_feat"].astype(np.int32),
            )
    except (OSError, KeyError, ValueError, lzma.LZMAError) as error:
        raise StoreError(file, f"is no model that is known here: {error}", _FIX) from None


def _beginnings(texts: Texts, num_bytes: int) -> Texts:
    """The first bytes of each text, cut between characters."""
    if texts.num_bytes <= num_bytes:
        return texts
    return Texts(*_cut(texts.data, texts.offsets, num_bytes))


@njit(cache=True, nogil=True)
def _cut(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], num_bytes: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    kept, bounds, out = np.empty(len(data), np.uint8), np.zeros(len(offsets), np.int64), 0
    for number in range(len(offsets) - 1):
        start, end = offsets[number], offsets[number + 1]
        if end - start > num_bytes:
            end = start + num_bytes
            while end > start and data[end] & 0xC0 == 0x80:
                end -= 1
        kept[out : out + end - start] = data[start:end]
        out += end - start
        bounds[number + 1] = out
    return kept[:out], bounds


@njit(cache=True, nogil=True)
def _score(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    prior: NDArray[np.float32],
    weights: NDArray[np.float32],
    moves: NDArray[np.uint32],
    rows: NDArray[np.uint16],
    features: NDArray[np.int32],
) -> NDArray[np.float64]:
    """[documents, labels]: the prior and log(1 + count) of each n-gram times its weights, over sqrt(bytes)."""
    out = np.zeros((len(offsets) - 1, len(prior)), np.float64)
    counts = np.zeros(len(weights), np.int32)
    touched = np.empty(len(weights), np.int32)
    scores = np.empty(len(prior), np.float32)
    for number in range(len(out)):
        start, end = offsets[number], offsets[number + 1]
        shout = False  # only capital letters
        for place in range(start, end):
            if 97 <= data[place] <= 122 or data[place] >= 0x80:
                shout = False
                break
            shout = shout or 65 <= data[place] <= 90
        state, num_touched = np.int64(0), 0
        for place in range(start, end):
            byte = np.int64(data[place])
            if shout and 65 <= byte <= 90:
                byte |= 32
            state = np.int64(moves[np.int64(rows[state]) * 256 + byte])
            feature = features[state]
            if feature >= 0:
                if counts[feature] == 0:
                    touched[num_touched] = feature
                    num_touched += 1
                counts[feature] += 1
        if not num_touched:
            continue  # all alike
        for label in range(len(prior)):
            scores[label] = prior[label]
        for row in range(num_touched):
            feature = touched[row]
            share = np.float32(np.log1p(np.float32(counts[feature])))
            counts[feature] = 0
            for label in range(len(prior)):
                scores[label] += share * weights[feature, label]
        for label in range(len(prior)):
            out[number, label] = scores[label] / np.sqrt(np.float64(end - start))
    return out
