"""Grafana's units as text: a value, and the scale of a whole axis."""

from __future__ import annotations

import math
from dataclasses import dataclass

_TIME = ((86400.0, "days"), (3600.0, "hours"), (60.0, "min"), (1.0, "s"), (0.001, "ms"))
_MICRO = ((1e6, "s"), (1e3, "ms"), (1.0, "µs"))
_BYTES = ((2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B"))
_PLAIN = {"none": "", "locale": "", "sci": "", "percent": "%", "celsius": "°C", "watt": "W"}
_SI = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


@dataclass(frozen=True)
class Scale:
    """Values are divided by `factor` and followed by `suffix`."""

    factor: float
    suffix: str

    def label(self, value: float) -> str:
        """Of a tick whose value is scaled already."""
        if value == 0:
            return "0"
        space = "" if self.suffix[:1] in ("e", "%") else " "
        return f"{value:,.6g}{space}{self.suffix}".rstrip()


def scale_for(unit: str, largest: float) -> Scale:
    """A scale on which `largest` (absolute) is easily read."""
    largest = abs(largest)
    if unit == "s":
        factor, suffix = next(((f, s) for f, s in _TIME if largest >= f), _TIME[-1] if largest else (1.0, "s"))
        return Scale(factor, suffix)
    if unit.startswith("si:"):
        factor, prefix = next(((f, p) for f, p in _SI if largest >= f), _SI[-1])
        return Scale(factor, prefix + unit.removeprefix("si:"))
    if unit == "percentunit":
        return Scale(0.01, "%")
    if unit == "sci" and 0 < largest < 0.01:
        exponent = math.floor(math.log10(largest))
        return Scale(10.0**exponent, f"e{exponent}")
    for name, steps in (("µs", _MICRO), ("bytes", _BYTES)):
        if unit == name:
            return Scale(*next((step for step in steps if largest >= step[0]), steps[-1]))
    if unit in _PLAIN or unit.startswith("suffix:"):
        return Scale(1.0, _PLAIN.get(unit, unit.removeprefix("suffix:")))
    raise ValueError(f"unit {unit!r} is not drawn yet; add it to monitoring/picture/units.py")


def value_text(value: float, unit: str, decimals: int | None) -> tuple[str, str]:
    """A single value and its unit, for a stat or a legend."""
    scale = scale_for(unit, value)
    scaled = value / scale.factor
    if decimals is None or (unit == "s" and scale.factor > 1):
        decimals = 0 if scaled == round(scaled) and abs(scaled) < 1e6 else max(0, 2 - len(str(int(abs(scaled)))) + 1)
    return f"{scaled:,.{decimals}f}", scale.suffix
