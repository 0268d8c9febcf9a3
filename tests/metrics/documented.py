"""What docs/monitoring.md says is exported: the tables under "metric | type"."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.conftest import ROOT


@dataclass(frozen=True)
class Documented:
    kind: str  # gauge, counter, histogram
    labels: frozenset[str]


def documented() -> dict[str, Documented]:
    """By name. A `*` in a name stands for each of the words that the last column has in its first backticks."""
    found: dict[str, Documented] = {}
    in_table = False
    for line in (ROOT / "docs/monitoring.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        in_table = line.startswith("| metric |") or (in_table and line.startswith("|"))
        name = re.fullmatch(r"`([\w*]+)(?:\{([\w,]+)\})?`", cells[0])
        if not in_table or name is None:
            continue
        pattern, labels = name[1], frozenset(filter(None, (name[2] or "").split(",")))
        words = re.search(r"`([^`]+)`", cells[-1])
        assert "*" not in pattern or words, f"{line}: which words?"
        for word in words[1].split() if words and "*" in pattern else [""]:
            full = pattern.replace("*", word)
            assert full not in found, f"docs/monitoring.md has {full} twice"
            found[full] = Documented(cells[1], labels)
    return found
