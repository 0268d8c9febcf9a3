"""Documents become the files of a token store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xgen.data import store
from xgen.data.documents import Document
from xgen.data.errors import StoreError
from xgen.data.store import DomainMeta, SourceMeta, StoreMeta
from xgen.data.tokenizer import Tokenizer

_BATCH_BYTES = 1 << 20  # of text encoded at once: enough for all cores, little memory
_MAX_NAMES = 1 << 16  # domains and sources are numbered in 16 bits


@dataclass
class _Tally:
    """What has been written of one domain."""

    number: int
    num_documents: int = 0
    num_tokens: int = 0
    num_bytes: int = 0


def write_store(folder: Path, documents: Iterable[Document], tokenizer: Tokenizer, recipe: str) -> StoreMeta:
    """Encode `documents` in order into `folder`; files already there become part of the store.

    meta.json comes last. Raises StoreError when there is no document, or too many domains or sources.
    """
    domains: dict[str, _Tally] = {}
    sources: dict[SourceMeta, int] = {}
    kind = np.dtype(store.token_type(tokenizer.vocab_size)).newbyteorder("<")
    end_of_text = np.array([tokenizer.end_of_text], dtype=kind).tobytes()
    num_tokens = num_documents = 0
    with (
        (folder / store.TOKENS_FILE).open("xb") as tokens_file,
        (folder / store.OFFSETS_FILE).open("xb") as offsets_file,
        (folder / store.DOMAINS_FILE).open("xb") as domains_file,
        (folder / store.SOURCES_FILE).open("xb") as sources_file,
    ):
        offsets_file.write(num_tokens.to_bytes(8, "little"))
        for batch in _batches(documents):
            encoded = tokenizer.encode_batch([document.text for document in batch])
            for document, tokens in zip(batch, encoded, strict=True):
                tally = domains.setdefault(document.domain, _Tally(len(domains)))
                source = SourceMeta(name=document.source, licence=document.licence)
                source_number = sources.setdefault(source, len(sources))
                if max(len(domains), len(sources)) > _MAX_NAMES:
                    what = f"is domain or source number {_MAX_NAMES + 1}"
                    raise StoreError(f"document {document.id}", what, "name collections, not single documents")
                tokens_file.write(tokens.astype(kind).tobytes() + end_of_text)
                num_tokens += len(tokens) + 1
                num_documents += 1
                offsets_file.write(num_tokens.to_bytes(8, "little"))
                domains_file.write(tally.number.to_bytes(2, "little"))
                sources_file.write(source_number.to_bytes(2, "little"))
                tally.num_documents += 1
                tally.num_tokens += len(tokens) + 1
                tally.num_bytes += len(document.text.encode())
    if not num_documents:
        raise StoreError(folder, "no document was given", "name inputs that hold text")
    tokenizer.save(folder / store.TOKENIZER_FILE)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    meta = StoreMeta(
        version=store.VERSION,
        recipe=recipe,
        vocab_size=tokenizer.vocab_size,
        token_type=store.token_type(tokenizer.vocab_size),
        end_of_text=tokenizer.end_of_text,
        num_tokens=num_tokens,
        num_documents=num_documents,
        domains=tuple(
            DomainMeta(
                name=name,
                num_documents=tally.num_documents,
                num_tokens=tally.num_tokens,
                num_bytes=tally.num_bytes,
            )
            for name, tally in domains.items()
        ),
        sources=tuple(sources),
        files={path.relative_to(folder).as_posix(): store.file_meta(path) for path in files},
    )
    (folder / store.META_FILE).write_text(meta.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return meta


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Documents in runs of about `_BATCH_BYTES` of text."""
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
