"""A small corpus of real text: one `<domain>.jsonl.zst` a domain, the licences, and what was left out."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from xgen.data.documents import Document, write_documents
from xgen.data.errors import StoreError
from xgen.data.progress import Progress, silent
from xgen.data.sources import Source, Unit

VERSION = 2  # raised when the same sources give another corpus
REPORT_FILE = "corpus.json"
LICENCES_FILE = "LICENSES.md"
_ENOUGH = 4096  # bytes: with fewer left under the cap, the search for a document that fits ends


class Skipped(BaseModel):
    """Something that was to be read and is not in the corpus."""

    model_config = ConfigDict(frozen=True)

    name: str
    reason: str


class SourceReport(BaseModel):
    """What one source gave."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: str
    domain: str
    licence: str
    what: str
    num_documents: int
    num_bytes: int


class CorpusReport(BaseModel):
    """corpus.json. `skipped` names each file that could not be used, so that nothing is lost silently."""

    model_config = ConfigDict(frozen=True)

    sources: tuple[SourceReport, ...]
    skipped: tuple[Skipped, ...]

    @property
    def domains(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(source.domain for source in self.sources))


def recipe(sources: Sequence[Source], max_bytes: int, vocab_size: int) -> str:
    """Names all that the corpus and its tokens follow from, without reading a text."""
    names = [f"{s.domain}/{s.name}/{s.version}" for s in sources]
    names.append(f"tokenizers/{importlib.metadata.version('tokenizers')}")
    text = " ".join([f"corpus-{VERSION}", *names, f"bytes={max_bytes}", f"vocab={vocab_size}"])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_corpus(folder: Path, sources: Sequence[Source], max_bytes: int, progress: Progress = silent) -> CorpusReport:
    """Write the corpus of at most `max_bytes` of text, the same share for each domain, into `folder`.

    Files come in an order that a hash of their names fixes, so that a cap takes a spread rather than the letter A.
    Raises StoreError when a domain stays empty.
    """
    domains = tuple(dict.fromkeys(source.domain for source in sources))
    share = max_bytes // len(domains)
    reports: list[SourceReport] = []
    skipped: list[Skipped] = []
    for domain in domains:
        members = [source for source in sources if source.domain == domain]
        taken = list(_take(members, share, skipped, progress))
        if not taken:
            raise StoreError(f"domain {domain}", f"no document fits {share} bytes", "raise --max-bytes")
        write_documents(folder / f"{domain}.jsonl.zst", taken)
        for source in members:
            own = [document for document in taken if document.source == source.name]
            reports.append(
                SourceReport(
                    name=source.name,
                    version=source.version,
                    domain=domain,
                    licence=source.licence,
                    what=source.what,
                    num_documents=len(own),
                    num_bytes=sum(len(document.text.encode()) for document in own),
                )
            )
    report = CorpusReport(sources=tuple(reports), skipped=tuple(skipped))
    (folder / REPORT_FILE).write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")
    (folder / LICENCES_FILE).write_text(_licences(report), encoding="utf-8")
    return report


def _take(sources: Sequence[Source], share: int, skipped: list[Skipped], progress: Progress) -> Iterator[Document]:
    """Documents of a domain up to `share` bytes; what cannot be read goes to `skipped`."""
    units = [(source, unit) for source in sources for unit in source.units()]
    units.sort(key=lambda pair: hashlib.blake2b(f"{pair[0].name}/{pair[1].name}".encode()).digest())
    left = share
    for source, unit in units:
        for name, text in _read(source, unit, skipped):
            size = len(text.encode())
            if size > left:
                continue
            left -= size
            yield Document(
                id=f"{source.name}/{name}", text=text, domain=source.domain, source=source.name, licence=source.licence
            )
        progress(f"text: {sources[0].domain}", share - left, share)
        if left < min(_ENOUGH, share // 4):
            return


def _read(source: Source, unit: Unit, skipped: list[Skipped]) -> list[tuple[str, str]]:
    try:
        texts = list(unit.read())
    except (OSError, ValueError, SyntaxError) as error:  # not there, not UTF-8, not Python
        skipped.append(Skipped(name=f"{source.name}/{unit.name}", reason=str(error)))
        return []
    empty = [name for name, text in texts if not text.strip()]
    skipped.extend(Skipped(name=f"{source.name}/{name}", reason="empty") for name in empty)
    return [(name, text) for name, text in texts if text.strip()]


def _licences(report: CorpusReport) -> str:
    lines = [
        "# Licences of the texts",
        "",
        "| source | version | domain | licence | documents | bytes | what |",
        "|---|---|---|---|---|---|---|",
    ]
    for s in report.sources:
        cells = (s.name, s.version, s.domain, s.licence, s.num_documents, s.num_bytes, s.what)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"
