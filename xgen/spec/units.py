"""Quantities as people write them: `24h`, `2T tokens`, `256k`, `6GB`. Parsers say what to write instead.

Durations, token budgets and rates are decimal (2T is 2*10^12). Lengths and batches are binary (4k is 4096, 4M
is 4*2^20), as the field writes sequence lengths. Memory is binary, as SLURM reads it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

_DURATION = re.compile(r"^(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?$")
_NUMBER = re.compile(r"^(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*([A-Za-z]*)$")
_DECIMAL = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12, "p": 10**15}
_BINARY = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def parse_duration(value: Any) -> int:
    """Seconds from `1d12h`, `24h`, `5m`, `90s`. Raises ValueError for a bare number or another unit."""
    text = str(value).strip().lower().replace(" ", "")
    match = _DURATION.match(text)
    if match is None or not text:
        hint = f"write {text}s, {text}m or {text}h" if text.isdigit() else "write it like 90s, 5m, 24h or 1d12h"
        raise ValueError(f"{value!r} is not a duration; {hint}")
    days, hours, minutes, seconds = (int(group or 0) for group in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads back: 5400 -> `1h30m`."""
    rest, parts = round(seconds), []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def _scaled(value: Any, word: str, scales: dict[str, int], example: str) -> int:
    text = str(value).strip().replace("_", "").replace(",", "")
    text = re.sub(rf"\s*{word}s?$", "", text, flags=re.IGNORECASE)
    match = _NUMBER.match(text)
    scale = scales.get(match[2].lower()) if match else None
    if match is None or scale is None:
        raise ValueError(f"{value!r} is not a number of {word}s; write it like {example}")
    number = float(match[1]) * scale
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is more than anybody counts; write it like {example}")
    if number != int(number):
        raise ValueError(f"{value!r} is not a whole number of {word}s; write it like {example}")
    return int(number)


def parse_tokens(value: Any) -> int:
    return _scaled(value, "token", _DECIMAL, "400k, 20B or 2T")


def parse_length(value: Any) -> int:
    return _scaled(value, "token", _BINARY, "4096, 4k (4096), 256k or 4M tokens")


def format_length(count: int) -> str:
    """The shortest text that `parse_length` reads back: 4096 -> `4k`."""
    return next(
        (f"{count // size}{unit}" for size, unit in ((2**20, "M"), (2**10, "k")) if count % size == 0), str(count)
    )


def parse_steps(value: Any) -> int:
    return _scaled(value, "step", _DECIMAL, "2000 or 2000 steps")


def parse_bytes(value: Any) -> int:
    """Bytes from `6GB`, `800MB`, `2TB` (binary, as SLURM counts). A bare number is refused."""
    text = re.sub(r"i?b$", "", str(value).strip().replace(" ", ""), flags=re.IGNORECASE)
    if text.isdigit():
        raise ValueError(f"{value!r} has no unit; write {text}GB or {text}MB")
    try:
        return _scaled(text, "byte", _BINARY, "6GB")
    except ValueError:
        raise ValueError(f"{value!r} is not a size; write it like 800MB, 6GB or 2TB") from None


def format_bytes(count: float) -> str:
    for size, unit in ((2**40, "TB"), (2**30, "GB"), (2**20, "MB"), (2**10, "kB")):
        if count >= size:
            return f"{count / size:.0f}{unit}" if count >= 100 * size else f"{count / size:.3g}{unit}"
    return f"{count:.0f}B"


def parse_rate(value: Any) -> float:
    return float(_scaled(value, "flop", _DECIMAL, "989T"))


def _read_bytes_text(count: int) -> str:
    return f"{count // 2**20}MB" if count % 2**20 == 0 else f"{count / 2**10}kB"


@dataclass(frozen=True)
class Quantity:
    """Annotation that reads a number through `parse`; `write` gives the text that is stored for it."""

    parse: Callable[[Any], float]
    description: str
    examples: tuple[str, ...]
    minimum: int = 0
    write: Callable[[int], str] | None = None

    def __get_pydantic_core_schema__(self, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        write = core_schema.plain_serializer_function_ser_schema(self.write, when_used="json") if self.write else None
        return core_schema.no_info_plain_validator_function(self._checked, serialization=write)

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        kinds = [{"type": "string"}] if self.write else [{"type": "string"}, {"type": "number"}]
        return {"anyOf": kinds, "description": self.description, "examples": list(self.examples)}

    def _checked(self, value: Any) -> float:
        number = self.parse(value)
        if number < self.minimum:
            raise ValueError(f"{value!r} is too small; write {self.examples[0]} or more")
        return number


# Durations and sizes are stored as text with their unit; the rest as plain numbers, which they read back.
Duration = Annotated[
    int, Quantity(parse_duration, "a duration with its unit", ("90s", "5m", "24h"), write=format_duration)
]
Bytes = Annotated[int, Quantity(parse_bytes, "a size, binary units", ("800MB", "6GB"), 1, _read_bytes_text)]
Tokens = Annotated[int, Quantity(parse_tokens, "tokens, decimal units", ("400k", "20B", "2T"), 1)]
Length = Annotated[int, Quantity(parse_length, "tokens, binary units", ("4k", "256k", "4M tokens"), 1)]
Steps = Annotated[int, Quantity(parse_steps, "optimizer steps", ("2000", "2000 steps"))]
Rate = Annotated[float, Quantity(parse_rate, "per second, decimal units", ("989T",), 1)]
