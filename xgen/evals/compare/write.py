"""Writes a comparison: the same files of the runs give the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xgen.evals.compare.comparison import Comparison
from xgen.evals.compare.found import Side
from xgen.evals.compare.plots import pictures
from xgen.evals.compare.render import to_markdown
from xgen.runs import write_atomic


def write_comparison(found: Comparison, sides: Sequence[Side], folder: Path) -> list[Path]:
    """`compare.json`, `compare.md` and pictures; each file is the old one or the whole new one. Raises OSError."""
    drawn = dict(pictures(sides))
    files = {"compare.json": found.model_dump_json(indent=1) + "\n", "compare.md": to_markdown(found, list(drawn))}
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (files | drawn).items():
        write_atomic(folder / name, text)
    return [folder / name for name in files | drawn]
