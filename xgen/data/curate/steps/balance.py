"""balance: for each mixture the exact plan under its budget: how much each domain gives, and where that ends.

The item `names` comes first: what follows from all documents together. No more than a unit of them is in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from xgen.data.curate.balance import Balance, Fixed, Temperature, UniMax
from xgen.data.curate.budget import Documents, End, Rule, plan
from xgen.data.curate.quotas import LongShare, Target
from xgen.data.curate.report_model import Quota
from xgen.data.curate.steps.base import Context, Item
from xgen.data.curate.steps.folders import fingerprint, write_json
from xgen.data.curate.steps.kept import Kept, domains_read, names_item, write_names
from xgen.data.errors import StoreError
from xgen.spec.mixtures import Mixture

PLAN_FILE = "plan.json"
# Tokens of a stretch of a store, which is written at once; a small store has several all the same, and of a large one
# they grow, for each is a part a domain of files that every training looks at.
_STRETCH_TOKENS, _SMALL_STRETCH, _FEW, _MOST = 1 << 26, 1 << 17, 16, 4096


class MixturePlan(BaseModel):
    """plan.json of a mixture; `ends` are those of the quotas."""

    model_config = ConfigDict(frozen=True)

    name: str
    budget: int
    planned: int
    quotas: tuple[Quota, ...]
    ends: tuple[End, ...]
    weights: dict[str, int]
    unmet: tuple[str, ...]


class BalanceStep:
    def __init__(self, context: Context) -> None:
        self._context = context
        context.need(context.units_of("select"), "select")
        _check_domains(context)

    def items(self) -> Sequence[Item]:
        return [names_item(self._context), *mixture_items(self._context).values()]

    def write(self, item: Item, folder: Path, tick: Callable[[int], None]) -> None:
        if item == names_item(self._context):
            write_names(self._context, folder, tick)
            return
        kept = Kept.open(self._context)

        def parts(rule: Rule | None) -> Iterator[Documents]:
            for documents in kept.parts(rule):
                tick(0)
                yield documents

        target = target_of(item.name, self._context.job.mixtures[item.name])
        planned = plan(parts, kept.names.domains, target, self._context.job.seed)
        quotas = tuple(
            Quota(
                domain=one.domain, part=one.part, documents=one.num_documents, supply=one.supply, cap=one.cap,
                wanted=one.wanted, tokens=one.tokens, epochs=one.epochs,
            )
            for one in planned.quotas
        )  # fmt: skip
        about = MixturePlan(
            name=item.name,
            budget=target.num_tokens,
            planned=planned.num_tokens,
            quotas=quotas,
            ends=planned.ends,
            weights=planned.weights,
            unmet=planned.unmet,
        )
        write_json(folder / PLAN_FILE, about)


def mixture_items(context: Context) -> dict[str, Item]:
    """An item for each mixture, by name."""
    balance = context.recipes["balance"]
    return {
        name: Item(name, context.work / "balance" / name, fingerprint("plan", balance, name, mixture))
        for name, mixture in context.job.mixtures.items()
    }


def read_mixture(context: Context, name: str) -> MixturePlan:
    return MixturePlan.model_validate_json((mixture_items(context)[name].folder / PLAN_FILE).read_bytes())


def target_of(name: str, spec: Mixture) -> Target:
    long = LongShare(spec.long.min_tokens, spec.long.share) if spec.long else None
    return Target(name, spec.tokens, _balance(spec), spec.max_epochs, spec.max_epochs_of, spec.min_band, long)


def stretches(num_tokens: int) -> int:
    """In how many pieces a store is written: by its size alone."""
    few = min(_FEW, -(-num_tokens // _SMALL_STRETCH))
    return max(1, few, min(_MOST, -(-num_tokens // _STRETCH_TOKENS)))


def _balance(spec: Mixture) -> Balance:
    if spec.balance.weights:
        return Fixed(spec.balance.weights)
    return UniMax() if spec.balance.temperature is None else Temperature(spec.balance.temperature)


def _check_domains(context: Context) -> None:
    """What the spec could not know: domains that records or a model say."""
    known = domains_read(context)
    for name, mixture in context.job.mixtures.items():
        for key, named in (("balance.weights", mixture.balance.weights), ("max_epochs_of", mixture.max_epochs_of)):
            if unknown := next((domain for domain in named if domain not in known), None):
                what, fix = f"{unknown!r} is no domain of the corpus", f"write one of {', '.join(known)}"
                raise StoreError(f"mixtures.{name}.{key}", what, fix)
