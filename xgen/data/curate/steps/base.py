"""What every step knows, and what it is: items, each with a recipe, whose results are written one by one."""

from __future__ import annotations

import platform
import unicodedata
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from xgen.data.curate.steps.folders import fingerprint, is_done, published
from xgen.data.curate.steps.plan import VERSION, CuratePlan, PlannedUnit
from xgen.data.errors import StoreError
from xgen.spec.curate import Curate

_PACKAGES = (
    "xgen", "numpy", "numba", "pyarrow", "tokenizers", "tiktoken", "py3langid", "xxhash", "zstandard", "resiliparse",
)  # fmt: skip
BEGINS = "begins"  # a folder of the work


@dataclass(frozen=True)
class Item:
    """A part of a step: its result is `folder`, and follows from `recipe`."""

    name: str
    folder: Path
    recipe: str


class Step(Protocol):
    """Made once a process, which then writes some of the items, in any order."""

    def items(self) -> Sequence[Item]: ...

    def write(self, item: Item, folder: Path, tick: Callable[[int], None]) -> None:
        """Write the result of an item into an empty folder; `tick` is told bytes of text that are done."""
        ...


@dataclass(frozen=True)
class Context:
    """A spec with its frozen plan, and where what lies."""

    job: Curate
    work: Path
    plan: CuratePlan

    @cached_property
    def recipes(self) -> dict[str, str]:
        """What the result of each step follows from. Where and in how many shards it is computed is no part of it."""
        job, plan = self.job, self.plan
        # Letters, and what regular expressions mean by them, are those of Python.
        versions = [VERSION, unicodedata.unidata_version, platform.python_version(), *map(version, _PACKAGES)]
        models = {role: model.fingerprint for role, model in plan.models.items()}
        quality = job.quality and job.quality.model_dump(mode="json", exclude={"path", "labels"})
        ensemble = job.ensemble and job.ensemble.model_dump(mode="json", exclude={"path", "labels"})
        domains = job.domains.model_dump(mode="json", exclude={"model"})
        dedup = job.dedup.model_dump(mode="json", exclude={"earlier", "index", "lines", "similarity"})
        earlier = [fact for fact in plan.facts.items() if fact[0].startswith("earlier ")]  # numbered in this order
        tag = fingerprint(
            versions, job.max_document, job.filters, job.pii, quality, domains, models.get("quality"),
            models.get("domain"), plan.facts["lists"], dedup, plan.num_buckets,
        )  # fmt: skip
        match = fingerprint(tag, [unit.name for unit in plan.units], job.dedup.similarity, earlier)
        cluster = fingerprint("cluster", match)
        lines = fingerprint("lines", cluster, job.dedup.lines)
        select = fingerprint(
            "select", lines, ensemble, models.get("ensemble"), job.decontaminate, plan.facts["evaluation"],
            plan.facts["tokenizer"], job.engine, job.seed,
        )  # fmt: skip
        balance = fingerprint("balance", select, job.frequency)
        return {"tag": tag, "match": match, "cluster": cluster, "lines": lines, "select": select, "balance": balance}

    @cached_property
    def whole(self) -> str:
        """What the output follows from."""
        mixtures = [(name, mixture.model_dump(mode="json")) for name, mixture in self.job.mixtures.items()]
        return fingerprint("curate", self.recipes["balance"], mixtures, self.job.dedup.index)

    def units_of(self, step: str) -> list[Item]:
        """An item for each unit of the input."""
        return [
            Item(f"{unit.number:06}", self.folder(step, unit.number), fingerprint(self.recipes[step], unit.name))
            for unit in self.plan.units
        ]

    def buckets_of(self, step: str, recipe: str) -> list[Item]:
        """An item for each bucket of keys."""
        return [
            Item(f"{number:04}", self.work / step / f"{number:04}", fingerprint(recipe, number))
            for number in range(self.plan.num_buckets)
        ]

    def folder(self, step: str, number: int) -> Path:
        """Of a unit, by what it reads: an input more or less moves no result of the others."""
        return self.work / step / self.plan.units[number].name

    @cached_property
    def has_ids(self) -> bool:
        """Whether any record has an id, by which `trace` finds it."""
        pages = any(piece.has_pages for unit in self.plan.units for piece in unit.pieces)
        return pages or any(item.keys.id for item in self.job.inputs)

    def input_name(self, number: int) -> str:
        """By what an input is told from the others, wherever it stands among them."""
        return fingerprint(self.job.inputs[number])

    def single(self, step: str) -> Item:
        """The only item of a step."""
        return Item(step, self.work / step, self.recipes[step])

    def unit(self, item: Item) -> PlannedUnit:
        return self.plan.units[int(item.name)]

    def need(self, items: Sequence[Item], step: str) -> None:
        """Raises StoreError where some item of an earlier step is missing."""
        missing = [item.name for item in items if not is_done(item.folder, item.recipe)]
        if missing:
            what = f"{len(missing):,} of {len(items):,} results of {step} are missing, the first is {missing[0]}"
            raise StoreError(self.work / step, what, f"run the step {step} first")

    @cached_property
    def begins(self) -> NDArray[np.int64]:
        """[units + 1]: the number of the first document of each unit, among all that were read. Whoever asks first
        looks at all units, the others read what it found."""
        folder, recipe = self.work / BEGINS, fingerprint(self.recipes["tag"], [unit.name for unit in self.plan.units])
        with suppress(FileNotFoundError):
            if is_done(folder, recipe):
                found: NDArray[np.int64] = np.load(folder / "begins.npy")
                return found
        tagged = self.units_of("tag")
        self.need(tagged, "tag")
        counts = [len(np.load(item.folder / "kept.npy", mmap_mode="r")) for item in tagged]
        begins = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        with published(folder, recipe) as own:
            np.save(own / "begins.npy", begins)
        return begins
