"""regmix.json: what the proxies gave, what was fitted, which weights follow."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

_POOR_RANK = 0.5  # of the correlation: what is proposed is then hardly better than a guess


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class ProxyRow(_Frozen):
    """`loss` is that of the target, `predicted` by a fit without this proxy."""

    number: int
    weights: dict[str, float]
    losses: dict[str, float]
    loss: float
    predicted: float


class ModelScore(_Frozen):
    """Of predicting proxies that were held out; `rank` is Spearman's correlation."""

    model: str
    r2: float
    rank: float


class DomainRow(_Frozen):
    """`most` is what its epochs allow, 1 without bounds."""

    name: str
    tokens: int
    share: float  # of the corpus
    most: float
    weight: float  # proposed


class RegmixReport(_Frozen):
    """regmix.json."""

    version: int = 1
    name: str
    domains: tuple[DomainRow, ...]
    target: dict[str, float]
    loss: float  # predicted, of the weights proposed
    corpus_loss: float  # predicted, of the corpus as it is
    scores: tuple[ModelScore, ...]  # the first is of the regression that was taken
    proxies: tuple[ProxyRow, ...]
    diverged: dict[int, str]  # left out, and why

    @property
    def best(self) -> ProxyRow:
        return min(self.proxies, key=lambda row: row.loss)

    @property
    def said(self) -> str:
        """What to know of the weights before they are used."""
        score = self.scores[0]
        lines = [
            f"{self.name}: {len(self.proxies)} proxies, target {_named(self.target)}.",
            f"Predicted loss {self.loss:.4f}; the corpus as it is {self.corpus_loss:.4f}, the best proxy "
            f"{self.best.loss:.4f} ({self.best.number}).",
            f"Proxies held out: rank correlation {score.rank:.3f}, R2 {score.r2:.3f} ({score.model}).",
        ]
        if score.rank < _POOR_RANK:
            lines.append("That is too little to go by: train more proxies, or longer ones.")
        if self.diverged:
            lines.append(f"Left out, for they diverged: {', '.join(map(str, self.diverged))}.")
        return "\n".join(lines)


def _named(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in values.items())
