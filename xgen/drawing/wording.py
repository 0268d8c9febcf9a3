"""Numbers as a person reads them."""

from __future__ import annotations

import math
import re
import time

from xgen.drawing.markup import Html, el

_POWERS = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_TOKEN_POWERS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def count(number: int) -> str:
    return f"{number:,}"


def many(number: int, one: str, several: str = "") -> str:
    """1 document, 1,234 documents."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def size(num_bytes: float) -> str:
    """12.3 MB"""
    return _scaled(num_bytes, _POWERS, "B")


def exact_size(num_bytes: int) -> Html:
    """12.3 MB, which tells its bytes to who points at it."""
    return el("span", size(num_bytes), title=f"{num_bytes:,} bytes")


def tokens(number: float) -> str:
    """1.23B, as a spec says it."""
    return _scaled(number, _TOKEN_POWERS, "").replace(" ", "")


def one_line(text: str) -> str:
    """What a program wrote, without what a terminal or a mail would obey, on one line."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]", " ", text).split())


def duration(seconds: float) -> str:
    """Two units at most: `2h05m`, `48s`, `1.5s`; what is nothing is `-`."""
    if seconds < 0.05:
        return "-"
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    for size, below, unit, lower in ((86400, 3600, "d", "h"), (3600, 60, "h", "m"), (60, 1, "m", "s")):
        if whole >= size:
            count, rest = divmod(whole, size)
            return f"{count}{unit}{rest // below:02d}{lower}"
    return f"{whole}s"


def moment(stamp: float) -> str:
    """`27 Nov 14:02`, of seconds since the epoch, where the reader is."""
    return time.strftime("%d %b %H:%M", time.localtime(stamp))


def short(number: float) -> str:
    """For axes: 10k"""
    return _scaled(number, _POWERS, "", digits=3).replace(" ", "")


def share(part: float, whole: float) -> str:
    """12.3%; a hyphen of nothing, and never 0% of something or 100% of less than all."""
    if not whole:
        return "-"
    percent = 100 * part / whole
    if part and abs(percent) < 0.01:
        return "< 0.01%"
    if part < whole and percent > 99.99:
        return "> 99.99%"
    return f"{percent:.2f}%" if abs(percent) < 1 or (percent > 99 and part != whole) else f"{percent:.1f}%"


def value(number: float | None) -> str:
    """What a rule measured, or its threshold."""
    if number is None or math.isnan(number):
        return "-"
    if math.isinf(number):
        return "∞" if number > 0 else "-∞"
    return f"{number:,.0f}" if number == round(number) and abs(number) < 1e15 else f"{number:.4g}"


def _scaled(number: float, powers: tuple[tuple[float, str], ...], unit: str, digits: int = 3) -> str:
    for power, prefix in powers:
        # What would be rounded to 1,000 of a unit is 1 of the next.
        if abs(number) >= power * 0.9995:
            scaled = number / power
            whole = len(str(int(abs(scaled) + 0.0005)))
            said, _, fraction = f"{scaled:.{max(0, digits - whole)}f}".partition(".")
            return f"{said}.{fraction} {prefix}{unit}" if fraction.strip("0") else f"{said} {prefix}{unit}"
    return f"{number:,.0f} {unit}" if number == round(number) else f"{number:.3g} {unit}"
