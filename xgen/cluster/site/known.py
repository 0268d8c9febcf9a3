"""What a GPU of a known type can do, from its maker's data sheet; the site itself does not say it."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class KnownGpu:
    flops: str  # dense bf16 FLOP/s of one
    memory: str | None  # None: the type comes with several amounts
    slices: int | None = None  # of MIG's seven; None: it is a whole one


# By a part of the name, as gres.conf or nvidia-smi has it (`h100`, `nvidia_a100-sxm4-80gb`); the first that fits.
_KNOWN: tuple[tuple[str, KnownGpu], ...] = (
    ("gb200|b200", KnownGpu("2250T", "180GB")),
    ("h200", KnownGpu("989T", "141GB")),
    ("gh200", KnownGpu("989T", None)),
    ("h100.*pcie", KnownGpu("756T", "80GB")),
    ("h100.*nvl", KnownGpu("835T", "94GB")),
    ("h100", KnownGpu("989T", "80GB")),
    ("a100", KnownGpu("312T", None)),
    ("a30", KnownGpu("165T", "24GB")),
    ("a40", KnownGpu("150T", "48GB")),
    ("l40s", KnownGpu("362T", "48GB")),
    ("l40", KnownGpu("181T", "48GB")),
    ("rtx.?4090", KnownGpu("165T", "24GB")),
)


_SLICES = 7  # of a GPU that MIG cuts


def known_gpu(name: str) -> KnownGpu | None:
    """None for a type that is not in the table. An amount of memory in the name counts more than the table's, but of a
    superchip: there it may be the CPU's."""
    lower = name.lower()
    found = next((gpu for pattern, gpu in _KNOWN if re.search(rf"(?<![a-z0-9])({pattern})(?![0-9])", lower)), None)
    if found is None or re.search("g[bh]200", lower):
        return found
    if mig := re.search(r"(?<![a-z0-9])(\d)g\.(\d+)gb", lower):
        part = round(float(found.flops.removesuffix("T")) * int(mig[1]) / _SLICES)
        return KnownGpu(f"{part}T", f"{mig[2]}GB", slices=int(mig[1]))
    said = re.search(r"(\d+) ?gb(?![a-z0-9])|[-_](\d{2,3})$", lower)
    return KnownGpu(found.flops, f"{said[1] or said[2]}GB") if said else found
