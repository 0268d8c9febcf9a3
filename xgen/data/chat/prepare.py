"""Records become a chat store: in units, in parallel, so that a kill costs the units under way and nothing else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from xgen.data.chat.assemble import assemble
from xgen.data.chat.encode import choose_engine
from xgen.data.chat.inputs import Input, content_of, files_of, hashed, inputs_of
from xgen.data.chat.meta import VERSION
from xgen.data.chat.store import ChatStore
from xgen.data.chat.tokenizer import ChatTokenizer
from xgen.data.chat.unit import Setting, begin, write_unit
from xgen.data.errors import InterruptedBuildError, StoreError
from xgen.data.interrupted import store_folder, take_over, unit_folder
from xgen.data.meta import META_FILE
from xgen.data.pool import StoppedError, Work, interrupted, work_through
from xgen.data.progress import Progress, silent
from xgen.data.staging import exclusive, sync_tree
from xgen.data.units import Unit
from xgen.data.writer import UNIT_FILE
from xgen.spec import Preference, Sft

_WAIT = 600.0  # seconds for another process that prepares the same
_SMALL = 8 << 20  # bytes that are not worth more processes
_RECORDS = "records"  # the fact that is their content


@dataclass(frozen=True)
class Prepared:
    """The store, and whether this call wrote it."""

    store: ChatStore
    written: bool


def chat_store(job: Sft | Preference, run: Path | None = None) -> Path:
    """Where the store of a job lies: `data.out`, else in the run. Raises StoreError where there is neither."""
    if job.data.out:
        return Path(job.data.out)
    if run is None:
        raise StoreError("data.out", "is missing, and there is no run", "write data.out: FOLDER")
    return run / "chat"


def prepare(
    job: Sft | Preference,
    folder: Path,
    stopped: Callable[[], bool] = lambda: False,
    progress: Progress = silent,
    workers: int = 0,
) -> Prepared | None:
    """The store of a job in `folder`; None when it was told to stop: the same call then goes on.

    A store of the same records, template and settings is left as it is. `workers`: processes, 0: one for each core.
    Raises StoreError, of which InterruptedBuildError says that the same call would go on.
    """
    folder = folder.absolute()
    tokenizer = ChatTokenizer.load(job.data.tokenizer, job.data.template)
    tokenizer.check_vocabulary(job.model.vocab_size)
    inputs = inputs_of(job)
    try:
        if found := _up_to_date(folder, facts_of(job, tokenizer), inputs):
            return Prepared(found, written=False)
        with exclusive(folder, _WAIT):
            if found := _up_to_date(folder, facts_of(job, tokenizer), inputs):
                return Prepared(found, written=False)
            return Prepared(_build(job, folder, tokenizer, inputs, stopped, progress, workers), written=True)
    except StoppedError:
        return None
    except OSError as error:
        raise interrupted(error, folder) from None


def facts_of(job: Sft | Preference, tokenizer: ChatTokenizer) -> dict[str, str]:
    """What a store follows from, besides the records, by what a person may change."""
    setting = _setting(job)
    held_out = job.validation.sources if job.validation else {}
    everything = {
        "kind": setting.kind,
        "tokenizer and template": tokenizer.fingerprint,
        "data.learn": setting.learn,
        "data.too_long": setting.truncate,
        "train.seq_len": setting.seq_len,
        "sources": [list(job.data.sources), list(held_out)],
        "version": VERSION,
    }
    return {key: hashed(value) for key, value in everything.items()}


def open_store(job: Sft | Preference, folder: Path) -> ChatStore:
    """The store that was prepared for a job. Raises StoreError where there is none, or one of another job."""
    tokenizer = ChatTokenizer.load(job.data.tokenizer, job.data.template)
    tokenizer.check_vocabulary(job.model.vocab_size)
    store = ChatStore.open(folder)
    _check_facts(store, facts_of(job, tokenizer))
    return store


def _setting(job: Sft | Preference) -> Setting:
    return Setting(
        tokenizer=Path(job.data.tokenizer),
        template=Path(job.data.template) if job.data.template else None,
        learn=job.data.learn,
        kind="conversations" if isinstance(job, Sft) else "pairs",
        seq_len=job.train.seq_len,
        truncate=job.data.too_long == "truncate",
    )


def _up_to_date(folder: Path, facts: dict[str, str], inputs: Sequence[Input]) -> ChatStore | None:
    """The store in `folder`, None where there is nothing. Raises StoreError for anything else."""
    if not (folder / META_FILE).is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise StoreError(folder, "is there and is no chat store", "write another data.out, or remove it")
        return None
    store = ChatStore.open(folder)
    _check_facts(store, facts)
    if store.meta.seen != hashed(files_of(inputs)) and store.meta.facts[_RECORDS] != hashed(content_of(inputs)):
        raise _other(store, _RECORDS)
    return store


def _check_facts(store: ChatStore, facts: dict[str, str]) -> None:
    if different := [key for key, value in facts.items() if store.meta.facts.get(key) != value]:
        raise _other(store, ", ".join(different))


def _other(store: ChatStore, what: str) -> StoreError:
    fix = "put back what it was, or write another data.out, or remove the folder to prepare it again"
    return StoreError(store.path, f"was prepared from other {what}", fix)


def _build(
    job: Sft | Preference,
    folder: Path,
    tokenizer: ChatTokenizer,
    inputs: Sequence[Input],
    stopped: Callable[[], bool],
    progress: Progress,
    workers: int,
) -> ChatStore:
    building = folder.with_name(f".{folder.name}.building")
    seen, content = hashed(files_of(inputs)), content_of(inputs)
    facts = {**facts_of(job, tokenizer), _RECORDS: hashed(content)}
    units = [unit for one in inputs for unit in one.plan.units]
    names = [hashed([one.folder, unit, one.content(unit, content)]) for one in inputs for unit in one.plan.units]
    take_over(building, facts, names, {_RECORDS})
    missing = {
        number: unit for number, unit in enumerate(units) if not (unit_folder(building, number) / UNIT_FILE).is_file()
    }
    engine = choose_engine(tokenizer)
    work = Work(building, begin, (building, _setting(job), engine), write_unit)
    if sum(one.plan.num_bytes for one in inputs) <= _SMALL:
        _work_here(work, missing, stopped)
    else:
        work_through(work, missing, len(units), workers or len(os.sched_getaffinity(0)), progress, stopped)
    if hashed(files_of(inputs_of(job))) != seen:
        places = ", ".join(one.path for one in inputs)
        raise InterruptedBuildError(places, "changed while it was read", "let nothing write there, and run it again")
    final = store_folder(building)
    shutil.rmtree(final, ignore_errors=True)
    final.mkdir()
    assemble(final, building, inputs, facts, seen, tokenizer.vocab_size, _setting(job))
    sync_tree(final)
    final.rename(folder)
    shutil.rmtree(building)
    return ChatStore.open(folder)


def _work_here(work: Work, units: dict[int, Unit], stopped: Callable[[], bool]) -> None:
    """Without other processes, which take longer to start than a small source takes."""

    def tick(num_bytes: int) -> None:
        del num_bytes
        if stopped():
            raise StoppedError

    state = work.begin(*work.arguments)
    for number, unit in units.items():
        tick(0)
        work.do(state, number, unit, tick)
