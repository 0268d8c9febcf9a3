"""The units of each source are put together: a chat store whose meta.json comes last."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from xgen.data.chat.inputs import Input
from xgen.data.chat.meta import (
    LEARN_FILE,
    OFFSETS_FILE,
    QUARANTINE_FILE,
    TOKENS_FILE,
    VERSION,
    ChatMeta,
    Counts,
    SourceMeta,
)
from xgen.data.chat.unit import ChatUnit, Setting
from xgen.data.errors import StoreError
from xgen.data.interrupted import unit_folder
from xgen.data.meta import META_FILE, file_meta, token_type
from xgen.data.readers import place_of
from xgen.data.writer import UNIT_FILE, BadRecord


def assemble(
    folder: Path,
    building: Path,
    inputs: Sequence[Input],
    facts: dict[str, str],
    seen: str,
    vocab_size: int,
    setting: Setting,
) -> None:
    """Make a store in `folder`, which is empty. Raises StoreError for a source of which no record is left."""
    sources, engines, first = list[SourceMeta](), set[str](), 0
    with (folder / QUARANTINE_FILE).open("x", encoding="utf-8") as quarantine:
        for one in inputs:
            units = [unit_folder(building, first + number) for number in range(len(one.plan.units))]
            first += len(units)
            metas = [ChatUnit.model_validate_json((unit / UNIT_FILE).read_bytes()) for unit in units]
            engines |= {meta.engine for meta in metas}
            bad = [record for meta in metas for record in meta.bad]
            quarantine.writelines(record.model_dump_json() + "\n" for record in bad)
            counts = sum((meta.counts for meta in metas), Counts())
            if not counts.records:
                raise _nothing_left(one, bad)
            _join(folder / one.folder, units)
            sources.append(SourceMeta(split=one.split, name=one.name, counts=counts))
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    meta = ChatMeta(
        version=VERSION,
        kind=setting.kind,
        facts=facts,
        seen=seen,
        vocab_size=vocab_size,
        token_type=token_type(vocab_size),
        seq_len=setting.seq_len,
        engine=" and ".join(sorted(engines)),
        sources=tuple(sources),
        files={path.relative_to(folder).as_posix(): file_meta(path) for path in files},
    )
    (folder / META_FILE).write_text(meta.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _join(folder: Path, units: Sequence[Path]) -> None:
    folder.mkdir(parents=True)
    for name in (TOKENS_FILE, LEARN_FILE):
        with (folder / name).open("xb") as out:
            for unit in units:
                with (unit / name).open("rb") as part:
                    shutil.copyfileobj(part, out, 1 << 22)
    offsets, end = [np.zeros(1, dtype="<i8")], 0
    for unit in units:
        own = np.fromfile(unit / OFFSETS_FILE, dtype="<i8")
        offsets.append(own[1:] + end)
        end += int(own[-1])
    np.concatenate(offsets).astype("<i8").tofile(folder / OFFSETS_FILE)


def _nothing_left(one: Input, bad: Sequence[BadRecord]) -> StoreError:
    if not bad:
        return StoreError(one.path, "holds no record", "name a file that does, or leave the source out")
    first = bad[0]
    what = f"{first.reason}; and no record of the source {one.name} can be used"
    return StoreError(place_of(first.file, first.line), what, "mend the records, or leave the source out")
