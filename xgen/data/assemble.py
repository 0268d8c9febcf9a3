"""A token store is made of units: their parts are renamed into place, tokens are not copied, a kill costs nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from xgen.data import store
from xgen.data.errors import StoreError
from xgen.data.store import DomainMeta, FileMeta, PartMeta, SourceMeta, StoreMeta
from xgen.data.tokenizer import Tokenizer
from xgen.data.writer import MAX_NAMES, UNIT_FILE, UNIT_SOURCES_FILE, BadRecord, UnitMeta, UnitPart

_OWN = (store.META_FILE, store.TOKENIZER_FILE, store.QUARANTINE_FILE)


def assemble(folder: Path, units: Sequence[Path], tokenizer: Tokenizer, recipe: str) -> StoreMeta:
    """Make a store in `folder` of the units, in their order; other files in `folder` become part of it.

    The units give their parts away and keep their unit.json, so that a second call goes on where a killed one was.
    meta.json comes last. Raises StoreError when there is no document, or too many sources.
    """
    other = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] not in (store.PARTS_DIR, *_OWN)
    ]
    sources: dict[SourceMeta, int] = {}
    domains: dict[str, list[UnitPart]] = {}
    parts: list[PartMeta] = []
    files: dict[str, FileMeta] = {}
    bad: list[BadRecord] = []
    (folder / store.PARTS_DIR).mkdir(exist_ok=True)
    for unit in units:
        meta = UnitMeta.model_validate_json((unit / UNIT_FILE).read_bytes())
        numbers = [sources.setdefault(source, len(sources)) for source in meta.sources]
        if len(sources) > MAX_NAMES:
            fix = "name collections, not single documents"
            raise StoreError("sources", f"there are more than {MAX_NAMES:,}", fix)
        bad += meta.bad
        for part in meta.parts:
            name = f"{len(parts):05}-{_in_a_path(part.domain)}"
            known = _move(unit / part.folder, folder / store.PARTS_DIR / name, part, numbers)
            files |= {f"{store.PARTS_DIR}/{name}/{file}": facts for file, facts in known.items()}
            domains.setdefault(part.domain, []).append(part)
            parts.append(
                PartMeta(name=name, domain=part.domain, num_documents=part.num_documents, num_tokens=part.num_tokens)
            )
    if not parts:
        raise StoreError("the input", "no document was given", "name inputs that hold text")
    tokenizer.save(folder / store.TOKENIZER_FILE)
    other.append(folder / store.TOKENIZER_FILE)
    if bad:
        lines = "".join(record.model_dump_json() + "\n" for record in bad)
        (folder / store.QUARANTINE_FILE).write_text(lines, encoding="utf-8")
        other.append(folder / store.QUARANTINE_FILE)
    files |= {path.relative_to(folder).as_posix(): store.file_meta(path) for path in other}
    whole = StoreMeta(
        version=store.VERSION,
        recipe=recipe,
        vocab_size=tokenizer.vocab_size,
        token_type=store.token_type(tokenizer.vocab_size),
        end_of_text=tokenizer.end_of_text,
        num_tokens=sum(part.num_tokens for part in parts),
        num_documents=sum(part.num_documents for part in parts),
        num_quarantined=len(bad),
        domains=tuple(
            DomainMeta(
                name=name,
                num_documents=sum(part.num_documents for part in own),
                num_tokens=sum(part.num_tokens for part in own),
                num_bytes=sum(part.num_bytes for part in own),
            )
            for name, own in domains.items()
        ),
        sources=tuple(sources),
        parts=tuple(parts),
        files=files,
    )
    (folder / store.META_FILE).write_text(whole.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return whole


def is_whole(unit: Path, moved_to: Path) -> bool:
    """True for a unit that is complete: each part lies in it with the sizes it says, or was given away."""
    try:
        meta = UnitMeta.model_validate_json((unit / UNIT_FILE).read_bytes())
        for part in meta.parts:
            if not (unit / part.folder).exists() and (moved_to / store.PARTS_DIR).exists():
                continue
            for name, facts in part.files.items():
                if (unit / part.folder / name).stat().st_size != facts.bytes:
                    return False
    except (OSError, ValueError):
        return False
    return True


def _move(here: Path, there: Path, part: UnitPart, numbers: Sequence[int]) -> dict[str, FileMeta]:
    """Rename a part into its place, its sources numbered as in the store; again after any kill."""
    if here.exists():
        values = np.fromfile(here / UNIT_SOURCES_FILE, dtype="<u2")
        np.array(numbers, dtype="<u2")[values].tofile(here / store.SOURCES_FILE)
        here.rename(there)
    (there / UNIT_SOURCES_FILE).unlink(missing_ok=True)
    known = {name: facts for name, facts in part.files.items() if name != UNIT_SOURCES_FILE}
    return known | {store.SOURCES_FILE: store.file_meta(there / store.SOURCES_FILE)}


def _in_a_path(domain: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", domain)[:40]
