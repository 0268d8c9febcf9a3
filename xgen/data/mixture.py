"""How many tokens of each component a stretch of training holds: exact integers, from weights as fractions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from math import lcm
from typing import TYPE_CHECKING

from xgen.data.errors import StoreError
from xgen.data.meta import StoreMeta
from xgen.spec import Pretrain, Share

if TYPE_CHECKING:
    from xgen.data.store import Part, TokenStore


@dataclass(frozen=True)
class Component:
    """Documents of one domain (or of all) of one store (or of all that have the domain), and their share."""

    name: str
    parts: tuple[Part, ...]
    num_tokens: int
    weight: Fraction
    max_epochs: float | None
    origin: str  # names its text: the stores' fingerprints and the domains
    begin: int = 0  # tokens of it that the stages before have taken


class Mixture:
    """Components with exact quotas: of the first n tokens of training, each has its share to within one token."""

    def __init__(self, components: Sequence[Component]) -> None:
        self.components = tuple(components)
        whole = lcm(*(component.weight.denominator for component in self.components))
        edges = [0]
        for component in self.components:
            edges.append(edges[-1] + int(component.weight * whole))
        self._edges = edges  # cumulated integer weights

    def quotas(self, tokens: int) -> list[int]:
        """Tokens of each component among the first `tokens`; they sum to `tokens`.

        Differences of cumulated shares, each rounded down: rounding never adds up, however long the training.
        """
        cumulated = [tokens * edge // self._edges[-1] for edge in self._edges]
        return [after - before for before, after in pairwise(cumulated)]

    def after(self, taken: Mapping[tuple[str, str], int]) -> Mixture:
        """The same, going on in every text where the stages before have left it: `taken` tokens by name and origin."""
        return Mixture([replace(c, begin=taken.get((c.name, c.origin), 0)) for c in self.components])

    def epochs(self, tokens: int) -> list[float]:
        """How often the text of each component has been seen after the first `tokens`, in the stages before too."""
        quotas = zip(self.quotas(tokens), self.components, strict=True)
        return [(component.begin + quota) / component.num_tokens for quota, component in quotas]

    def check_caps(self, tokens: int) -> None:
        """Raises StoreError when `tokens` of training repeat a component more often than it may be."""
        for component, epochs in zip(self.components, self.epochs(tokens), strict=True):
            if component.max_epochs is not None and epochs > component.max_epochs:
                total = sum(other.weight for other in self.components)
                most = max(0.0, component.max_epochs * component.num_tokens - component.begin) / tokens
                raise StoreError(
                    f"mixture: {component.name}",
                    f"{component.num_tokens:,} tokens would be seen {epochs:.2f} times in {tokens:,}"
                    f"{' and the stages before' if component.begin else ''}, "
                    f"and max_epochs is {component.max_epochs:g}",
                    f"write a share of at most {most:.3g} of all (it is {float(component.weight / total):.3g}), "
                    "a larger max_epochs, or add text",
                )


def make_mixture(
    stores: Mapping[str, TokenStore] | Mapping[str, StoreMeta],
    shares: Mapping[str, Share],
    max_epochs: float | None = None,
) -> Mixture:
    """The components that `shares` names: `DOMAIN`, `STORE/DOMAIN` or `STORE/*`; all domains in proportion when empty.

    `max_epochs` holds where a share has none of its own. What stores say of themselves is enough for a mixture whose
    quotas can be asked for; its components then have no parts to read.

    Raises StoreError for a name that no store has, a text that two names share, and a weight too small to count.
    """
    metas = {name: store if isinstance(store, StoreMeta) else store.meta for name, store in stores.items()}
    known = {(name, domain.name): domain.num_tokens for name, meta in metas.items() for domain in meta.domains}
    if not shares:
        shares = {f"{name}/{domain}": Share(weight=num_tokens) for (name, domain), num_tokens in known.items()}
    components, owners = [], dict[tuple[str, str], str]()
    for name, share in shares.items():
        parts: list[Part] = []
        origin: list[str] = []
        num_tokens = 0
        for store, domain in _matches(name, list(known)):
            if (store, domain) in owners:
                what = f"takes {store}/{domain}, which {owners[store, domain]} takes too"
                raise StoreError(f"mixture: {name}", what, "name it once")
            owners[store, domain] = name
            num_tokens += known[store, domain]
            origin.append(f"{metas[store].fingerprint}/{domain}")
            opened = stores[store]
            if not isinstance(opened, StoreMeta):
                parts += opened.domain(domain)
        # As it is written, not as the nearest binary fraction.
        weight = Fraction(str(share.weight))
        cap = max_epochs if share.max_epochs is None else share.max_epochs
        components.append(Component(name, tuple(parts), num_tokens, weight, cap, origin=" ".join(origin)))
    return Mixture(components)


def mixtures_for(job: Pretrain, stores: Mapping[str, TokenStore] | Mapping[str, StoreMeta]) -> list[Mixture]:
    """The mixture of each stage: one that has a text of the stages before goes on in it where they end by their plan,
    so that no document comes again before its epoch is over. Raises StoreError where the stores cannot give it."""
    taken: dict[tuple[str, str], int] = {}
    mixtures = []
    for stage in job.stages:
        mixture = make_mixture(stores, job.shares(stage), job.data.max_epochs).after(taken)
        mixture.check_caps(stage.num_tokens)
        for component, quota in zip(mixture.components, mixture.quotas(stage.num_tokens), strict=True):
            taken[component.name, component.origin] = component.begin + quota
        mixtures.append(mixture)
    return mixtures


def check_vocabulary(job: Pretrain, metas: Mapping[str, StoreMeta]) -> None:
    """Raises StoreError for a store with ids that the model does not know."""
    for name, meta in metas.items():
        if meta.vocab_size > job.model.vocab_size:
            what = f"holds ids of a vocabulary of {meta.vocab_size}, and the model's is {job.model.vocab_size}"
            fix = "build it with the model's tokenizer, or write a larger vocab_size"
            raise StoreError(job.data.folders[name], what, fix)


def _matches(name: str, known: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """(store, domain) of all text that `name` means."""
    wanted_store, slash, wanted = name.rpartition("/")
    found = [
        (store, domain) for store, domain in known if wanted in (domain, "*") and (not slash or store == wanted_store)
    ]
    if not found:
        names = ", ".join(sorted({domain for _, domain in known} | {f"{store}/{domain}" for store, domain in known}))
        raise StoreError(f"mixture: {name}", "is in no store", f"write one of {names}")
    return found
