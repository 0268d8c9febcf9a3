"""Classifiers of a spec: trained or found by `prepare`, opened by the steps that use them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xgen.data.curate.classify.model import (
    Classifier,
    ModelKind,
    load_classifier,
    log_odds,
    probabilities,
)
from xgen.data.curate.classify.train import Recipe, Stage, train
from xgen.data.curate.filters.take import take_texts
from xgen.data.curate.steps.folders import fingerprint
from xgen.data.curate.steps.plan import CuratePlan, PlannedModel
from xgen.data.curate.texts import Texts
from xgen.data.errors import StoreError
from xgen.data.readers import Bad, Defaults, Keys, read_unit
from xgen.data.units import plan_units
from xgen.spec.classifiers import Classifier as ClassifierSpec
from xgen.spec.classifiers import Quality
from xgen.spec.curate import Curate


def roles(job: Curate) -> dict[str, ClassifierSpec]:
    """The classifiers that a job uses, by what for."""
    found = {"domain": job.domains.model, "quality": job.quality, "ensemble": job.ensemble}
    return {role: spec for role, spec in found.items() if spec}


def prepare_models(job: Curate, work: Path) -> dict[str, PlannedModel]:
    """Train the models that have labels, unless they are there, and look at the others. Raises StoreError."""
    planned = {}
    for role, spec in roles(job).items():
        path = _trained(role, spec, job.seed, work) if spec.labels else Path(spec.path or "")
        first = spec.good if isinstance(spec, Quality) else None
        planned[role] = PlannedModel(path=str(path), fingerprint=load_classifier(path, first).fingerprint)
    return planned


def _trained(role: str, spec: ClassifierSpec, seed: int, work: Path) -> Path:
    kind: ModelKind = "domain" if role == "domain" else "quality"
    stage: Stage = "ensemble" if role == "ensemble" else "fast"
    files = {label: plan_units(paths).files for label, paths in spec.labels.items()}
    facts = {label: [asdict(file) for file in found] for label, found in files.items()}
    versions = [version(name) for name in ("xgen", "numpy", "numba")]
    out = work / "models" / f"{role}-{fingerprint(facts, spec.text_key, seed, versions)}"
    if not out.is_dir():
        seeds = {label: _texts(paths, spec.text_key) for label, paths in spec.labels.items()}
        train(out, seeds, Recipe(kind=kind, stage=stage, seed=seed))
    return out


def _texts(paths: Sequence[str], key: str) -> Iterator[str]:
    for unit in plan_units(paths).units:
        for record in read_unit(unit, Keys(text=key), Defaults("seed", "seed")):
            if not isinstance(record, Bad):
                yield record.text


@cache
def opened(model: PlannedModel, first: str | None = None) -> Classifier:
    """Raises StoreError for a model that is another one now."""
    found = load_classifier(Path(model.path), first)
    if found.fingerprint != model.fingerprint:
        raise StoreError(model.path, "has changed since the plan was made", "run it again from the step prepare")
    return found


class Judge:
    """A quality model on the domains that it is for."""

    def __init__(self, spec: Quality, model: PlannedModel) -> None:
        """Raises StoreError for a model that does not say what is good."""
        self._model = opened(model, spec.good)
        if self._model.labels[0] != spec.good:
            what = f"has the labels {', '.join(self._model.labels)}, and a quality model begins with {spec.good}"
            raise StoreError(model.path, what, "name a model of xgen data train-classifier --kind quality")
        self._domains = spec.domains and frozenset(spec.domains)
        with np.errstate(divide="ignore"):
            self.least = float(np.log(spec.min_probability) - np.log1p(-spec.min_probability))

    def __call__(self, texts: Texts, domains: Sequence[str]) -> NDArray[np.float32]:
        """Log-odds of being good; not a number where the model is not asked."""
        scores = np.full(len(texts), np.nan, dtype=np.float32)
        asked = np.array([self._domains is None or domain in self._domains for domain in domains], dtype=np.bool_)
        rows = np.flatnonzero(asked)
        if len(rows):
            some = texts if len(rows) == len(texts) else take_texts(texts, rows)
            scores[rows] = log_odds(self._model.logits(some))
        return scores


class Sorter:
    """Puts records without a domain into one: by source, by the model, or `other`."""

    def __init__(self, job: Curate, plan: CuratePlan) -> None:
        self._spec = job.domains
        model = plan.models.get("domain")
        self._model = opened(model) if model else None

    def __call__(self, texts: Texts, domains: Sequence[str], sources: Sequence[str]) -> list[str]:
        """The domain of each document; "" in `domains` asks for one."""
        found = [domain or self._by_rule(source) for domain, source in zip(domains, sources, strict=True)]
        rows = np.array([row for row, domain in enumerate(found) if not domain], dtype=np.int64)
        if not len(rows):
            return found
        names = [self._spec.other] * len(rows)
        if self._model:
            shares = probabilities(self._model.logits(take_texts(texts, rows)))
            best = shares.argmax(axis=1)
            sure = shares[np.arange(len(rows)), best] >= self._spec.min_probability
            names = [
                self._model.labels[label] if good else self._spec.other
                for label, good in zip(best.tolist(), sure.tolist(), strict=True)
            ]
        for row, name in zip(rows.tolist(), names, strict=True):
            found[row] = name
        return found

    def _by_rule(self, source: str) -> str:
        return next((domain for glob, domain in self._spec.rules.items() if fnmatchcase(source, glob)), "")
