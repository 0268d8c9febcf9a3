"""The tiny store: real text that ships with installed packages, tokenized, ready to train on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from xgen.data.assemble import assemble
from xgen.data.corpus import REPORT_FILE, CorpusReport, recipe, write_corpus
from xgen.data.documents import Document, read_documents
from xgen.data.encode import Encoder, choose_engine
from xgen.data.errors import StoreError
from xgen.data.progress import Progress, silent
from xgen.data.readers import Record
from xgen.data.sources import tiny_sources
from xgen.data.staging import exclusive, staged
from xgen.data.store import META_FILE, TokenStore, token_type
from xgen.data.tokenizer import Tokenizer
from xgen.data.writer import write_unit

VOCAB_SIZE = 4096
MAX_BYTES = 6 << 20
WAIT = 300.0  # seconds for another build of the same store
CORPUS_DIR = "corpus"


@dataclass(frozen=True)
class Build:
    """The store, and whether this call wrote it."""

    store: TokenStore
    corpus: CorpusReport
    written: bool


def build_tiny_store(
    out: Path,
    *,
    vocab_size: int = VOCAB_SIZE,
    max_bytes: int = MAX_BYTES,
    wait: float = WAIT,
    progress: Progress = silent,
) -> Build:
    """Build the store in `out`, or return at once when it is there and up to date.

    `out` appears whole or not at all, whenever the process dies. Of several builds at once one works and the others
    wait for it, at most `wait` seconds. Raises StoreError.
    """
    out = out.resolve()
    texts = tiny_sources()
    name = recipe(texts, max_bytes, vocab_size)
    if found := _up_to_date(out, name):
        return found
    if out.exists() and not (out / META_FILE).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise StoreError(out, "is there and is no token store", "write another --out, or remove it")
    with exclusive(out, wait):
        if found := _up_to_date(out, name):
            return found
        with staged(out) as folder:
            corpus = folder / CORPUS_DIR
            corpus.mkdir()
            report = write_corpus(corpus, texts, max_bytes, progress)
            files = [corpus / f"{domain}.jsonl.zst" for domain in report.domains]
            tokenizer = Tokenizer.train((d.text for d in _documents(files, "tokenizer", progress)), vocab_size)
            unit = folder.with_name(f"{folder.stem}.unit.tmp")  # `staged` clears it away, whatever happens
            unit.mkdir()
            kind = token_type(tokenizer.vocab_size)
            records = map(_record, _documents(files, "tokens", progress))
            encoder = Encoder(tokenizer, choose_engine(tokenizer, "auto").engine)
            write_unit(unit, records, encoder, kind, tokenizer.end_of_text)
            assemble(folder, [unit], tokenizer, name)
    return Build(TokenStore.open(out), report, written=True)


def _up_to_date(out: Path, name: str) -> Build | None:
    """The store in `out` if `recipe` would give it again, else None."""
    try:
        store = TokenStore.open(out)
        if store.meta.recipe != name:
            return None
        report = CorpusReport.model_validate_json((out / CORPUS_DIR / REPORT_FILE).read_bytes())
    except (StoreError, OSError, ValueError):
        return None
    return Build(store, report, written=False)


def _record(document: Document) -> Record:
    size = len(document.text.encode())
    return Record(document.text, document.domain, document.source, document.licence, size)


def _documents(files: list[Path], what: str, progress: Progress) -> Iterator[Document]:
    for number, file in enumerate(files):
        progress(what, number, len(files))
        yield from read_documents(file)
    progress(what, len(files), len(files))
