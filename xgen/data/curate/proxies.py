"""The proxies of a regmix job: on which mixture each is trained, what it is to be judged by, where its result lies.

All of it follows from the spec and from what the stores say of themselves, in every shard alike. No torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from xgen.data.curate.regmix import proxy_weights
from xgen.data.curate.steps.folders import fingerprint
from xgen.data.errors import StoreError
from xgen.data.meta import StoreMeta, read_meta
from xgen.data.mixture import check_vocabulary
from xgen.spec.base import nearest
from xgen.spec.pretrain import Pretrain
from xgen.spec.regmix import Regmix

VERSION = 1  # raised when the same spec gives another proxy, or its training another loss
RESULT_FILE = "result.json"
_PARTS = 1_000_000  # that weights are whole numbers of
_MIN_WEIGHT = 2e-4  # RegMix's
# What a proxy's loss does not follow from.
_ELSEWHERE = {
    "data": {"store", "stores", "max_epochs", "workers", "prefetch"},
    "validation": {"store", "every"},
}


class ProxyResult(BaseModel):
    """result.json of a proxy that is done. `diverged` says why it is left out, '' for one that counts."""

    model_config = ConfigDict(frozen=True)

    weights: dict[str, float]
    losses: dict[str, float]  # held-out, by domain of the validation store
    diverged: str = ""


@dataclass(frozen=True)
class Proxy:
    """One training. The folder's name says what its result follows from: another spec has others."""

    number: int
    weights: dict[str, float]  # of all domains, 0 for those left out; they sum to 1
    job: Pretrain
    folder: Path

    @property
    def result_file(self) -> Path:
        return self.folder / RESULT_FILE

    def result(self) -> ProxyResult | None:
        """None while it is not done."""
        try:
            return ProxyResult.model_validate_json(self.result_file.read_bytes())
        except FileNotFoundError:
            return None


@dataclass(frozen=True)
class Proxies:
    corpus: dict[str, int]  # tokens by domain of what the weights are for, by name
    max_weights: dict[str, float]  # that its training may have
    target: dict[str, float]  # weights of the held-out losses, which sum to 1
    all: tuple[Proxy, ...]


def proxies_of(job: Regmix) -> Proxies:
    """Raises StoreError for a store that is not there, and for what it does not have."""
    metas = {name: read_meta(Path(folder)) for name, folder in job.proxy.data.folders.items()}
    check_vocabulary(job.proxy, metas)
    has = _domains(metas.values())
    if len(has) < 2:
        what = f"there is one domain, {', '.join(has)}, and nothing to weigh"
        raise StoreError("proxy.data", what, "name stores of several")
    corpus = _corpus(job, has)
    known(job.max_epochs_of, has, "max_epochs_of")
    most = {}
    if job.tokens is not None:
        epochs = {name: job.max_epochs_of.get(name, job.max_epochs) for name in corpus}
        most = {name: _most(epochs[name] * tokens, job.tokens) for name, tokens in corpus.items()}
    held_out = read_meta(Path(job.proxy.validation.store)) if job.proxy.validation else None
    assert held_out
    scored = _domains([held_out])
    known(job.target, scored, "target")
    target = job.target or dict.fromkeys(scored, 1.0)
    stores = [meta.fingerprint for meta in (*metas.values(), held_out)]
    rows = _rows(job, corpus, has, most)
    return Proxies(
        corpus,
        most,
        {name: weight / sum(target.values()) for name, weight in target.items()},
        tuple(_proxy(job, number, dict(zip(corpus, row, strict=True)), stores) for number, row in enumerate(rows)),
    )


def known(names: Iterable[str], domains: Iterable[str], key: str) -> None:
    """Raises StoreError for a name that is no domain."""
    for name in names:
        if name not in domains:
            raise StoreError(key, f"{name!r} is no domain of the store", nearest(name, domains))


def in_parts(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """[rows, domains] as millionths that sum to 1, those that are 0 staying so: what a spec can say."""
    scaled = weights * _PARTS
    whole = np.floor(scaled)
    missing = np.rint(_PARTS - whole.sum(axis=1)).astype(np.int64)
    rank = np.argsort(np.argsort(whole - scaled, axis=1, kind="stable"), axis=1, kind="stable")
    found: NDArray[np.float64] = (whole + (rank < missing[:, None])) / _PARTS
    return found


def _most(tokens: float, budget: int) -> float:
    """The weight of so many tokens, less a token of rounding and a millionth: a training refuses what is over."""
    return min(1.0, max(0.0, (tokens - 1) / budget - 1 / _PARTS))


def _domains(metas: Iterable[StoreMeta]) -> dict[str, int]:
    """Tokens of each domain over all stores, by name."""
    found: dict[str, int] = {}
    for meta in metas:
        for domain in meta.domains:
            found[domain.name] = found.get(domain.name, 0) + domain.num_tokens
    return dict(sorted(found.items()))


def _corpus(job: Regmix, has: Mapping[str, int]) -> dict[str, int]:
    if not job.corpus:
        return dict(has)
    known(job.corpus, has, "corpus")
    if missing := next((name for name in has if name not in job.corpus), None):
        raise StoreError("corpus", f"says no tokens of {missing!r}, which the proxies have", f"write {missing}: TOKENS")
    return {name: job.corpus[name] for name in has}


def _rows(
    job: Regmix, corpus: Mapping[str, int], has: Mapping[str, int], most: Mapping[str, float]
) -> list[list[float]]:
    stage = job.proxy.stages[0]
    bounds = dict(most)
    if (epochs := job.proxy.data.max_epochs) is not None:
        own = {name: _most(epochs * tokens, stage.num_tokens) for name, tokens in has.items()}
        if (room := sum(own.values())) < 1:
            what = f"all domains together may have {room:.3g} of a proxy's {stage.num_tokens:,} tokens"
            raise StoreError("proxy.data.max_epochs", what, "write a larger one, or fewer tokens")
        bounds = {name: min(bound, bounds.get(name, 1.0)) for name, bound in own.items()}
    least = max(_MIN_WEIGHT, stage.seq_len / stage.num_tokens)
    rows: list[list[float]] = in_parts(proxy_weights(corpus, job.num_proxies, bounds, least, job.seed)).tolist()
    return rows


def _proxy(job: Regmix, number: int, weights: dict[str, float], stores: list[str]) -> Proxy:
    spec = job.proxy_on(weights)
    content = spec.model_dump(mode="json", include={"model", "stages", "optimizer", "guard", "seed", "deterministic"})
    for key, left_out in _ELSEWHERE.items():
        content[key] = getattr(spec, key).model_dump(mode="json", exclude=left_out)
    recipe = fingerprint(VERSION, content, stores)
    return Proxy(number, weights, spec, Path(job.out) / "proxies" / f"{number:04}-{recipe}")
