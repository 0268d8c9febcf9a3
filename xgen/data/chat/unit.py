"""One unit of a source: records are read, rendered, encoded and written; what is left out is listed with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from xgen.data.chat.encode import ChatEncoder, DifferentIdsError, Tokens
from xgen.data.chat.meta import LEARN_FILE, OFFSETS_FILE, TOKENS_FILE, Counts, Kind
from xgen.data.chat.records import RenderedRecord, render_records
from xgen.data.chat.template import QUOTE, Learn
from xgen.data.chat.tokenizer import ChatTokenizer
from xgen.data.encode import Resolved
from xgen.data.interrupted import unit_in_place
from xgen.data.meta import token_type
from xgen.data.pool import Tick
from xgen.data.readers import kind_of
from xgen.data.units import Unit
from xgen.data.writer import UNIT_FILE, BadRecord

_BATCH_CHARS = 1 << 19  # of rendered text that is encoded at once


class Setting(BaseModel):
    """What the tokens of a record follow from, besides the record."""

    model_config = ConfigDict(frozen=True)

    tokenizer: Path
    template: Path | None
    learn: Learn
    kind: Kind
    seq_len: int
    truncate: bool


class ChatUnit(BaseModel):
    """unit.json."""

    model_config = ConfigDict(frozen=True)

    counts: Counts
    bad: tuple[BadRecord, ...]
    engine: Resolved


@dataclass(frozen=True)
class State:
    """Of a worker."""

    building: Path
    setting: Setting
    tokenizer: ChatTokenizer
    engine: Resolved


def begin(building: Path, setting: Setting, engine: Resolved) -> State:
    return State(building, setting, ChatTokenizer.load(setting.tokenizer, setting.template), engine)


def write_unit(state: State, number: int, unit: Unit, tick: Tick) -> None:
    """Raises StoreError, OSError."""
    try:
        _write(state, number, unit, tick, state.engine)
    except DifferentIdsError:
        # All of the unit by one engine, so that its bytes follow from what it reads alone.
        _write(state, number, unit, tick, "tokenizers")


class _Writer:
    """The files of a unit."""

    def __init__(self, folder: Path, vocab_size: int, stack: ExitStack) -> None:
        self._kind = np.dtype(token_type(vocab_size)).newbyteorder("<")
        self._folder = folder
        self._tokens = stack.enter_context((folder / TOKENS_FILE).open("xb"))
        self._learn = stack.enter_context((folder / LEARN_FILE).open("xb"))
        self._ends = [0]
        self._records = self._learnt = self._longest = self._truncated = self._quoting = 0
        self._bad: list[BadRecord] = []

    def add(self, own: Sequence[Tokens], cut: bool, quoting: bool) -> None:
        for one in own:
            self._tokens.write(one.ids.astype(self._kind).tobytes())
            self._learn.write(one.learn.tobytes())
            self._ends.append(self._ends[-1] + len(one.ids))
            self._learnt += int(np.count_nonzero(one.learn))
        self._records += 1
        self._truncated += cut
        self._quoting += quoting
        self._longest = max(self._longest, _length(own))

    def leave_out(self, file: str, line: int, reason: str) -> None:
        self._bad.append(BadRecord(file=file, line=line, reason=reason))

    def close(self, engine: Resolved) -> None:
        (self._folder / OFFSETS_FILE).write_bytes(np.array(self._ends, dtype="<i8").tobytes())
        counts = Counts(
            records=self._records,
            tokens=self._ends[-1],
            learnt=self._learnt,
            longest=self._longest,
            truncated=self._truncated,
            quoting=self._quoting,
            dropped=dict(Counter(kind_of(bad.reason) for bad in self._bad)),
        )
        meta = ChatUnit(counts=counts, bad=tuple(self._bad), engine=engine)
        (self._folder / UNIT_FILE).write_text(meta.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _write(state: State, number: int, unit: Unit, tick: Tick, engine: Resolved) -> None:
    setting, encoder = state.setting, ChatEncoder(state.tokenizer, engine)
    with unit_in_place(state.building, number) as folder, ExitStack() as stack:
        writer = _Writer(folder, state.tokenizer.vocab_size, stack)
        for batch in _batches(render_records(state.tokenizer, setting.kind, setting.learn, unit, writer.leave_out)):
            encoded = iter(encoder.encode([one for record in batch for one in record.rendered]))
            for record in batch:
                own = [next(encoded) for _ in record.rendered]
                length = _length(own)
                if too_long := length > setting.seq_len:
                    if not setting.truncate:
                        what = f"is longer than {setting.seq_len:,} tokens: {length:,}"
                        writer.leave_out(record.file, record.line, what)
                        continue
                    own = _cut(own, setting.seq_len)
                if all(one.learn.any() for one in own):
                    writer.add(own, too_long, any(QUOTE in one.text for one in record.rendered))
                else:
                    what = "has nothing to learn within seq_len" if too_long else "has nothing to learn"
                    writer.leave_out(record.file, record.line, what)
            tick(sum(len(one.text) for record in batch for one in record.rendered))
        writer.close(engine)


def _batches(records: Iterable[RenderedRecord]) -> Iterator[list[RenderedRecord]]:
    batch, size = list[RenderedRecord](), 0
    for record in records:
        batch.append(record)
        size += sum(len(one.text) for one in record.rendered)
        if size >= _BATCH_CHARS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _cut(own: Sequence[Tokens], seq_len: int) -> list[Tokens]:
    """Each cut at its end so that they fit together: the longer of two first, down to half."""
    if len(own) == 1:
        keep = [seq_len]
    else:
        half = seq_len // 2
        keep = [max(half, seq_len - len(other.ids)) for other in reversed(own)]
    return [Tokens(one.ids[:most], one.learn[:most]) for one, most in zip(own, keep, strict=True)]


def _length(own: Sequence[Tokens]) -> int:
    return sum(len(one.ids) for one in own)
