"""fastText's own models (.bin, .ftz), where fasttext is installed: DCLM's and FineWeb's filters are such files."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xgen.data.curate.texts import Texts
from xgen.data.errors import StoreError
from xgen.data.meta import file_meta

SUFFIXES = (".bin", ".ftz")
_PREFIX = "__label__"
_LEAST = 1e-9  # a probability that fastText rounds to 0, or does not report


@dataclass(frozen=True)
class FastText:
    """As a `Classifier`. `first` stands at column 0: of a quality model, the good label. Not calibrated by us."""

    model: Any
    labels: tuple[str, ...]
    fingerprint: str

    @classmethod
    def open(cls, path: Path, first: str | None = None) -> FastText:
        """Raises StoreError for a file that fasttext cannot read, and where it is not installed."""
        if not path.is_file():
            raise StoreError(path, "does not exist", "name a fastText model, or a folder of xgen data train-classifier")
        try:
            library: Any = importlib.import_module("fasttext")
        except ImportError:
            fix = "run pip install fasttext-numpy2-wheel, or train one: xgen data train-classifier"
            raise StoreError(path, "is a fastText model, and fasttext is not installed", fix) from None
        try:
            model = library.load_model(str(path))
        except ValueError as error:
            raise StoreError(path, f"cannot be read by fasttext: {error}", "name a model, not vectors") from None
        labels = [label.removeprefix(_PREFIX) for label in model.get_labels()]
        if first is not None:
            if first not in labels:
                raise StoreError(path, f"has no label {first}", f"name one of {', '.join(sorted(labels)[:20])}")
            labels.sort(key=lambda label: label != first)
        return cls(model, tuple(labels), file_meta(path).sha256[:16])

    def logits(self, texts: Texts) -> NDArray[np.float64]:
        """[documents, labels]: logarithms of fastText's probabilities, of the text as one line."""
        places = {label: place for place, label in enumerate(self.labels)}
        out = np.full((len(texts), len(self.labels)), math.log(_LEAST))
        for number in range(len(texts)):
            # Not model.predict: that of the newest release fails on NumPy 2.
            for share, label in self.model.f.predict(texts[number].replace("\n", " ") + "\n", -1, 0.0, "strict"):
                out[number, places[label.removeprefix(_PREFIX)]] = math.log(max(share, _LEAST))
        return out
