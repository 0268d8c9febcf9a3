"""Curation: raw text becomes token stores and mixtures (docs/curation.md). Its kernels are compiled by numba."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def _settle_cache() -> None:
    """Compiled kernels lie in a folder of their own for every state of these sources: numba looks at the file of a
    kernel only, and would go on with what it had compiled before another file changed."""
    if "NUMBA_CACHE_DIR" in os.environ:
        return
    sources = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        sources.update(file.read_bytes())
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    os.environ["NUMBA_CACHE_DIR"] = str(root / "xgen" / "numba" / sources.hexdigest()[:16])


_settle_cache()
