"""Units are encoded, each in a process of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xgen.data.encode import Encoder, Resolved
from xgen.data.interrupted import unit_in_place
from xgen.data.pool import Tick, Work, work_through
from xgen.data.progress import Progress
from xgen.data.readers import Defaults, Keys, read_unit
from xgen.data.store import token_type
from xgen.data.tokenizer import Tokenizer
from xgen.data.units import Unit
from xgen.data.writer import write_unit


@dataclass(frozen=True)
class Job:
    """What every unit needs."""

    building: Path
    tokenizer: Path
    engine: Resolved
    keys: Keys
    defaults: Defaults
    on_bad_record: str


@dataclass(frozen=True)
class _State:
    job: Job
    tokenizer: Tokenizer
    encoder: Encoder


def encode_units(job: Job, units: dict[int, Unit], total: int, workers: int, progress: Progress) -> None:
    """Encode `units`, each into its folder; `total` counts those that are done already, too.

    Raises StoreError for what is wrong with the input, and InterruptedBuildError for the rest.
    """
    work_through(Work(job.building, _begin, (job,), _encode_unit), units, total, workers, progress)


def _begin(job: Job) -> _State:
    tokenizer = Tokenizer.load(job.tokenizer)
    return _State(job, tokenizer, Encoder(tokenizer, job.engine))


def _encode_unit(state: _State, number: int, unit: Unit, tick: Tick) -> None:
    job, tokenizer = state.job, state.tokenizer
    with unit_in_place(job.building, number) as folder:
        records = read_unit(unit, job.keys, job.defaults)
        kind, stop = token_type(tokenizer.vocab_size), job.on_bad_record == "stop"
        write_unit(folder, records, state.encoder, kind, tokenizer.end_of_text, tick, stop)
