"""Whether what was planted in the tiny corpus was found: `python -m xgen.data.curate.tiny --check SPEC`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from xgen.data.curate.steps.base import Context
from xgen.data.curate.steps.fates import Fate, fates
from xgen.data.curate.steps.plan import read_plan
from xgen.data.curate.tiny.corpus import PROSE, Truth, is_seed, read_truth
from xgen.data.documents import lines_of
from xgen.spec.curate import Curate

_JUDGES = ("language", "gopher", "quality", "ensemble")  # they say what is spam; duplicates and leaks are no fault


@dataclass(frozen=True)
class Check:
    """`right` of `documents` fared as they should."""

    what: str
    right: int
    documents: int

    def __str__(self) -> str:
        return f"{self.what:<52} {self.right:>6,} of {self.documents:,}  {self.right / max(1, self.documents):.4f}"


def check(raw: Path, job: Curate) -> Iterator[Check]:
    """By kind of planted document, and the real prose that no label was made of. The work folder has to be there."""
    found: dict[str, Fate] = {}
    for fate in fates(Context(job, Path(job.work_folder), read_plan(job))):
        found.setdefault(fate.id, fate)
    planted = read_truth(raw)

    def of(kind: str) -> list[Truth]:
        return [row for row in planted if row.kind == kind]

    def apart(rows: list[Truth]) -> int:
        """Pairs of which one at most was kept."""
        return sum(bool(found[row.id].reason or found[row.of].reason) for row in rows)

    yield Check("exact copies: one stays", apart(of("exact")), len(of("exact")))
    for low in (0.7, 0.8, 0.9):
        rows = [row for row in of("near") if low <= row.similarity < low + 0.1]
        yield Check(f"near copies, similarity {low} to {low + 0.1:.1f}: one stays", apart(rows), len(rows))
    for kind, what in (("leak", "leaks: gone"), ("spam", "spam: gone")):
        yield Check(what, sum(bool(found[row.id].reason) for row in of(kind)), len(of(kind)))
    known = {row.id for row in planted}
    real = [
        found[name]
        for domain in PROSE
        for name in _ids(raw / "raw" / domain)
        if name not in known and not is_seed(name)
    ]
    stay = sum(not fate.reason.startswith(_JUDGES) for fate in real)
    yield Check("real prose that gave no labels: no filter or model drops it", stay, len(real))


def _ids(folder: Path) -> Iterator[str]:
    for file in sorted(folder.iterdir()):
        for _, line in lines_of(file):
            yield json.loads(line)["id"]
