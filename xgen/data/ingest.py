"""Building a store in parallel, so that a kill costs the units under way and nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from xgen.data import store
from xgen.data.assemble import assemble, is_whole
from xgen.data.encode import Choice, Engine, choose_engine
from xgen.data.errors import InterruptedBuildError, StoreError
from xgen.data.interrupted import clear_finished, store_folder, take_over, unit_folder
from xgen.data.progress import Progress, silent
from xgen.data.readers import Defaults, Keys, Record, read_unit
from xgen.data.staging import exclusive, sync_tree
from xgen.data.store import TOKENIZER_FILE, TokenStore
from xgen.data.tokenizer import Tokenizer
from xgen.data.units import Plan, Unit, hub_files, plan_units
from xgen.data.workers import Job, encode_units

VERSION = 4  # raised when the same input gives another store
TRAIN_BYTES = 64 << 20  # of text that a tokenizer is trained on


@dataclass(frozen=True)
class Recipe:
    """All that the content of a store follows from."""

    inputs: tuple[str, ...]
    defaults: Defaults
    keys: Keys = field(default_factory=Keys)
    tokenizer: Path | None = None  # None: trained on the first `TRAIN_BYTES`, to `vocab_size`
    vocab_size: int = 32_000
    on_bad_record: Literal["stop", "quarantine"] = "stop"
    engine: Engine = "auto"

    def facts(self, plan: Plan) -> dict[str, str]:
        """What the store follows from, by what a person may change; files count by path, size and time of change.

        Raises StoreError for a tokenizer that is not there.
        """
        if self.tokenizer and not self.tokenizer.is_file():
            raise StoreError(self.tokenizer, "does not exist", "name a tokenizer.json")
        files = [*plan.files, *hub_files(self.inputs)]
        everything = {
            "inputs": self.inputs,
            "files": files,
            "units": plan.units,
            "domain, source and licence": asdict(self.defaults),
            "keys": asdict(self.keys),
            "tokenizer": hashlib.sha256(self.tokenizer.read_bytes()).hexdigest() if self.tokenizer else self.vocab_size,
            "on-bad-record": self.on_bad_record,
            "engine": self.engine,
            "versions": [VERSION, *map(version, ("xgen", "tokenizers", "tiktoken")), plan.extractor],
        }
        return {key: _hash(value) for key, value in everything.items()}

    @property
    def by_unit(self) -> set[str]:
        """Facts that concern single units. A tokenizer that is trained follows from all files."""
        return {"on-bad-record"} | ({"files", "units"} if self.tokenizer else set())

    def unit_names(self, plan: Plan) -> list[str]:
        """A name for what each unit reads."""
        hub = hub_files(self.inputs)
        return [_hash([unit, plan.files_of(unit) or hub]) for unit in plan.units]


@dataclass(frozen=True)
class Built:
    """The store; how many units this call encoded, and how many an earlier one had done; 0 of both: up to date."""

    store: TokenStore
    encoded: int
    found: int
    choice: Choice | None
    ignored: dict[str, int]  # files in the input's folders that are of no kind that is read, by suffix


def build_store(
    out: Path, recipe: Recipe, workers: int = 0, wait_for: float = 0.0, progress: Progress = silent
) -> Built:
    """Build the store in `out` with `workers` processes (0: one for each core this process may use).

    Byte for byte the same whatever the number of workers. What an earlier, interrupted call has done is taken over from
    `.NAME.building/` beside `out`: the units that this call would write again. Raises StoreError (InterruptedBuildError
    where the same call would go on) and OSError.
    """
    out = out.resolve()
    plan = plan_units(recipe.inputs)
    facts = recipe.facts(plan)
    name = _hash(facts)
    building = out.with_name(f".{out.name}.building")
    if not building.exists() and (found := _up_to_date(out, name)):
        return Built(found, 0, 0, None, plan.ignored)
    if out.exists() and not (out / store.META_FILE).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise StoreError(out, "is there and is no token store", "write another folder, or remove it")
    with exclusive(out, wait_for):
        if found := _up_to_date(out, name):
            clear_finished(building, facts)
            return Built(found, 0, 0, None, plan.ignored)
        take_over(building, facts, recipe.unit_names(plan), recipe.by_unit)
        tokenizer = _tokenizer(building, recipe, plan.units, progress)
        choice = choose_engine(tokenizer, recipe.engine)
        final = store_folder(building)
        folders = [unit_folder(building, number) for number in range(len(plan.units))]
        missing = [number for number, folder in enumerate(folders) if not is_whole(folder, final)]
        kept = building / TOKENIZER_FILE
        job = Job(building, kept, choice.engine, recipe.keys, recipe.defaults, recipe.on_bad_record)
        encode_units(job, {number: plan.units[number] for number in missing}, len(folders), _cores(workers), progress)
        if recipe.facts(plan_units(recipe.inputs)) != facts:
            fix = "let nothing write there, and run it again"
            raise InterruptedBuildError(", ".join(recipe.inputs), "changed while it was read", fix)
        final.mkdir(exist_ok=True)
        assemble(final, folders, tokenizer, name)
        sync_tree(final)
        _put_in_place(final, out)
        shutil.rmtree(building)
    return Built(TokenStore.open(out), len(missing), len(folders) - len(missing), choice, plan.ignored)


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=asdict)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _cores(workers: int) -> int:
    return workers or len(os.sched_getaffinity(0))


def _up_to_date(out: Path, name: str) -> TokenStore | None:
    try:
        opened = TokenStore.open(out)
    except StoreError:
        return None
    return opened if opened.meta.recipe == name else None


def _put_in_place(final: Path, out: Path) -> None:
    replaced = final.with_name("replaced")
    if out.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        out.rename(replaced)
    final.rename(out)


def _tokenizer(building: Path, recipe: Recipe, units: Sequence[Unit], progress: Progress) -> Tokenizer:
    """The recipe's own; or one that is trained once and kept with the units."""
    kept = building / TOKENIZER_FILE
    if not kept.exists():
        if recipe.tokenizer:
            tokenizer = Tokenizer.load(recipe.tokenizer)
        else:
            tokenizer = Tokenizer.train(_texts(units, recipe, progress), recipe.vocab_size)
        tokenizer.save(kept.with_suffix(".tmp"))
        kept.with_suffix(".tmp").rename(kept)
    return Tokenizer.load(kept)


def _texts(units: Sequence[Unit], recipe: Recipe, progress: Progress) -> Iterator[str]:
    """The same share of text of each unit, up to `TRAIN_BYTES`."""
    share = max(1, TRAIN_BYTES // len(units))
    for number, unit in enumerate(units):
        progress("tokenizer", number, len(units))
        taken = 0
        for record in read_unit(unit, recipe.keys, recipe.defaults):
            if isinstance(record, Record):
                taken += record.num_bytes
                yield record.text
            elif recipe.on_bad_record == "stop":
                fix = "mend or remove it, or write --on-bad-record quarantine"
                raise StoreError(record.place, record.reason, fix)
            if taken >= share:
                break
    progress("tokenizer", len(units), len(units))
