"""From labelled documents to a calibrated classifier with figures on documents that it has not seen."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xgen.data.curate.classify.bands import Bands, count_scores
from xgen.data.curate.classify.calibrate import Combination, combine
from xgen.data.curate.classify.features import NGrams
from xgen.data.curate.classify.figures import cuts, figures
from xgen.data.curate.classify.linear import Linear, train_linear
from xgen.data.curate.classify.model import (
    BAD,
    GOOD,
    VERSION,
    MemberMeta,
    Model,
    ModelKind,
    ModelMeta,
    NGramsMeta,
    SeedMeta,
    log_odds,
    write_model,
)
from xgen.data.curate.classify.structure import STATISTICS
from xgen.data.curate.classify.trees import Trees, train_trees
from xgen.data.curate.texts import Texts
from xgen.data.errors import StoreError
from xgen.data.progress import Progress, silent
from xgen.data.staging import exclusive, staged

MIN_DOCUMENTS = 50  # of a label
Stage = Literal["fast", "ensemble"]
_MEMBERS: dict[Stage, dict[str, NGrams | None]] = {
    "fast": {"words": NGrams("words", 1, 2, 20), "structure": None},
    "ensemble": {
        "words": NGrams("words", 1, 3, 21),
        "chars": NGrams("chars", 3, 5, 20),
        "structure": None,
    },
}
_ROUNDS: dict[Stage, int] = {"fast": 500, "ensemble": 1000}


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained. `held_out` of every label give the figures, and twice as many calibrate."""

    kind: ModelKind = "quality"
    stage: Stage = "fast"
    epochs: int = 10
    rate: float = 2.0
    tree_depth: int = 5
    tree_rate: float = 0.1
    held_out: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class _Part:
    texts: Texts
    labels: NDArray[np.int64]


def train(
    out: Path,
    seeds: Mapping[str, Iterable[str]],
    recipe: Recipe,
    sample: Iterable[str] | None = None,
    progress: Progress = silent,
) -> Model:
    """Train a classifier into the folder `out`, which appears whole; the same documents give the same bytes.

    `seeds` holds the documents of each label. Of a quality model these are `good` and `bad`, and `sample`, documents of
    the corpus, gives the edges of its ten bands. Raises StoreError for labels that do not fit the kind, or with too few
    documents.
    """
    names = tuple(seeds) if recipe.kind == "domain" else (GOOD, BAD)
    if recipe.kind == "quality" and set(seeds) != {GOOD, BAD}:
        raise StoreError("labels", f"{', '.join(seeds) or 'none'}: a quality model has {GOOD} and {BAD}", "name these")
    if len(names) < 2:
        raise StoreError("labels", "a classifier tells apart two or more", "name another one")
    parts, facts = _split({name: list(seeds[name]) for name in names}, recipe)
    fitting, calibrating, held = parts
    members, scores = dict[str, Linear | Trees](), dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]()
    for done, (name, grams) in enumerate(_MEMBERS[recipe.stage].items()):
        progress("members", done, len(_MEMBERS[recipe.stage]))
        given = fitting.texts, fitting.labels, len(names)
        if grams:
            member: Linear | Trees = train_linear(*given, grams, recipe.epochs, recipe.rate, recipe.seed)
        else:
            rounds = _ROUNDS[recipe.stage]
            member = train_trees(*given, rounds, recipe.tree_depth, recipe.tree_rate, recipe.seed)
        members[name] = member
        scores[name] = member.logits(calibrating.texts), member.logits(held.texts)
    combination = combine([fitted for fitted, _ in scores.values()], calibrating.labels)
    about = []
    for (name, grams), scale in zip(_MEMBERS[recipe.stage].items(), combination.scales, strict=True):
        alone = combine([scores[name][0]], calibrating.labels)
        found = figures(alone([scores[name][1]]), held.labels, names)
        about.append(MemberMeta(name=name, ngrams=grams and NGramsMeta(**asdict(grams)), scale=scale, figures=found))
    fitted, judged = (combination([score[place] for score in scores.values()]) for place in (0, 1))
    quality = recipe.kind == "quality"
    meta = ModelMeta(
        version=VERSION,
        kind=recipe.kind,
        labels=names,
        biases=combination.biases,
        members=tuple(about),
        statistics=STATISTICS,
        seeds=facts,
        figures=figures(judged, held.labels, names),
        cuts=cuts(log_odds(fitted), calibrating.labels == 0, log_odds(judged), held.labels == 0) if quality else (),
        bands=_bands(combination, tuple(members.values()), sample) if quality and sample is not None else (),
        recipe=asdict(recipe),
        made_with={name: version(name) for name in ("xgen", "numpy", "numba")},
        files={},
    )
    with exclusive(out, 0), staged(out) as folder:
        return write_model(folder, meta, tuple(members.values()))


def _bands(combination: Combination, members: tuple[Linear | Trees, ...], sample: Iterable[str]) -> tuple[float, ...]:
    texts = Texts.of(list(sample))
    scores = log_odds(combination([member.logits(texts) for member in members]))
    return Bands.fit(count_scores(scores, np.diff(texts.offsets))).edges


def _split(seeds: dict[str, list[str]], recipe: Recipe) -> tuple[list[_Part], dict[str, SeedMeta]]:
    """To train, to calibrate, to judge: by what the documents say, so that neither their order nor a copy matters."""
    digests = {name: [_digest(text, recipe.seed) for text in texts] for name, texts in seeds.items()}
    owners: dict[bytes, set[str]] = {}
    for name, found in digests.items():
        for digest in found:
            owners.setdefault(digest, set()).add(name)
    chosen: list[list[tuple[bytes, int, str]]] = [[], [], []]
    facts = {}
    for label, (name, texts) in enumerate(seeds.items()):
        own = {digest: text for digest, text in zip(digests[name], texts, strict=True) if len(owners[digest]) == 1}
        if len(own) < MIN_DOCUMENTS:
            what = f"has {len(own)} different documents, and a label needs {MIN_DOCUMENTS}"
            raise StoreError(f"label {name}", what, "name more of them")
        ordered = sorted(own)
        num_held = max(5, round(len(ordered) * recipe.held_out))
        bounds = (3 * num_held, len(ordered)), (num_held, 3 * num_held), (0, num_held)
        for rows, (first, last) in zip(chosen, bounds, strict=True):
            rows.extend((digest, label, own[digest]) for digest in ordered[first:last])
        ambiguous = sum(len(owners[digest]) > 1 for digest in digests[name])
        facts[name] = SeedMeta(
            documents=len(texts),
            bytes=sum(len(text.encode()) for text in own.values()),
            duplicates=len(texts) - ambiguous - len(own),
            ambiguous=ambiguous,
            trained=len(ordered) - 3 * num_held,
            calibrated=2 * num_held,
            held_out=num_held,
            digest=hashlib.sha256(b"".join(ordered)).hexdigest()[:16],
        )
    parts = []
    for rows in chosen:
        rows.sort()
        labels = np.array([label for _, label, _ in rows], np.int64)
        parts.append(_Part(Texts.of([text for _, _, text in rows]), labels))
    return parts, facts


def _digest(text: str, seed: int) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16, key=str(seed).encode()).digest()
