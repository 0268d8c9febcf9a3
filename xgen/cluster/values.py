"""SLURM's ways to write an amount, a time, a state, a reason. Pure; whoever cannot be read is a ValueError."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType

_NOTHING = ("", "(null)", "N/A", "none", "None", "NONE", "Unknown", "null")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50}
_MAX_REASON = 64  # characters of a label
# Of job states that come with a base state in JSON: the one that `squeue` prints.
_SHOWN_FIRST = ("COMPLETING", "CONFIGURING", "RESIZING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "STAGE_OUT")

# Base words of sinfo's states in which a node takes work, or has it.
WORKING = frozenset({"idle", "allocated", "mixed", "completing", "planned"})


def records(text: str) -> list[defaultdict[str, str]]:
    """What `scontrol show … -o` prints, a record a line; '' for what this version does not have. A word that comes
    again is part of a free text, such as a reason."""
    found = [re.findall(r"(\S+?)=(.*?)(?=\s+\S+?=|\s*$)", line) for line in text.splitlines()]
    return [defaultdict(str, reversed(pairs)) for pairs in found if pairs]


def text(written: str) -> str:
    """Empty where SLURM says nothing."""
    return "" if written in _NOTHING else written


def count(text: str) -> int:
    """`12`, or `3.4K` as squeue shortens it; 0 for nothing."""
    if text in _NOTHING:
        return 0
    number, unit = (text[:-1], text[-1]) if text[-1:] in "KMGTP" else (text, "")
    return round(float(number) * _UNITS[unit])


def number(text: str) -> float | None:
    """None where SLURM says nothing."""
    return None if text in (*_NOTHING, "parent") else float(text)


def time(text: str) -> float | None:
    """Seconds since 1970 (SLURM_TIME_FORMAT=%s), or local time where a version does not heed that."""
    if text in _NOTHING:
        return None
    seconds = float(text) if text.isdecimal() else datetime.fromisoformat(text).timestamp()
    return seconds or None


@lru_cache(4096)  # a few texts on thousands of nodes
def gres(text: str) -> Mapping[str, int]:
    """Amounts by kind of `gpu:h100:8(S:0-1),shard:16`: {"gpu:h100": 8, "shard": 16}."""
    amounts: dict[str, int] = {}
    if text not in _NOTHING:
        for item in re.sub(r"\([^)]*\)", "", text).split(","):
            # A model that SLURM does not know was `(null)` and is empty now.
            *kind, amount = [word for word in item.strip().split(":") if word != "no_consume"]
            if kind and re.fullmatch(r"\d+[KMGTP]?", amount):
                name = ":".join(filter(None, kind))
                amounts[name] = amounts.get(name, 0) + count(amount)
    return MappingProxyType(amounts)


def gpus(amounts: Mapping[str, int]) -> int:
    return sum(amount for kind, amount in amounts.items() if kind.partition(":")[0] == "gpu")


@lru_cache(4096)
def tres_gpus(text: str) -> int:
    """GPUs of `cpu=8,mem=64G,gres/gpu=4,gres/gpu:h100=4`: the sum that it says, else that of the models."""
    amounts = dict(item.split("=", 1) for item in text.split(",") if item.startswith("gres/gpu"))
    if "gres/gpu" in amounts:
        return count(amounts["gres/gpu"])
    return sum(count(amount) for kind, amount in amounts.items() if kind.startswith("gres/gpu:"))


@lru_cache(4096)
def gpu_numbers(text: str) -> tuple[int, ...]:
    """Of `gpu:h100:2(IDX:0-1),gpu:a100:1(IDX:7)`: 0, 1, 7. None where SLURM counts GPUs and does not number them."""
    found = re.findall(r"(?<![^,])gpu(?::[^,()]+)*\(IDX:([\d,-]+)\)", text)
    return tuple(int(number) for numbers in found for number in _numbers(numbers))


@lru_cache(4096)
def hosts(text: str) -> tuple[str, ...]:
    """Each of `g[01-03,7],login,r[1-2]n[1-2]`."""
    names: list[str] = []
    for item in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", text):
        some = [""]
        for plain, numbers in re.findall(r"([^\[]+)|\[([^\]]*)\]", item):
            some = [name + end for name in some for end in ([plain] if plain else _numbers(numbers))]
        names += some
    return tuple(names)


def _numbers(text: str) -> list[str]:
    """Each of `01-03,7`, as wide as the first of its range."""
    bounds = [part.partition("-") for part in text.split(",")]
    return [f"{n:0{len(low)}}" for low, _, high in bounds for n in range(int(low), int(high or low) + 1)]


def duration(text: str) -> float | None:
    """Seconds of `1-00:00:00`, `00:10:00`, `30 sec`, `30`; None for no limit, and for nothing."""
    if text.upper() in ("UNLIMITED", "INFINITE", "NOT_SET") or text in _NOTHING:
        return None
    if found := re.fullmatch(r"(\d+)(?: (sec|min|hour|day)\w*)?", text):
        return float(found[1]) * {"sec": 1, "min": 60, "hour": 3600, "day": 86400}[found[2] or "sec"]
    days, _, clock = text.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    hours, minutes, seconds = [0] * (3 - len(parts)) + parts
    return float(int(days or 0) * 86400 + hours * 3600 + minutes * 60 + seconds)


def num_tasks(job: str) -> int:
    """Jobs behind one line of squeue: `12`, `12_3` and `12+1` are one, `12_[4-9:2,11%2]` are four."""
    found = re.fullmatch(r"\d+_\[([\d,:-]+)(?:%\d+)?\]", job) if "[" in job else None
    if found is None:
        return 1
    total = 0
    for part in found[1].split(","):
        bounds, _, step = part.partition(":")
        first, _, last = bounds.partition("-")
        total += len(range(int(first), int(last or first) + 1, int(step or 1)))
    return total


@lru_cache(4096)
def reason(text: str) -> str:
    """Why a job waits, as a label with few values: not which nodes it waits for."""
    word = re.split(r"[,:(]", text.strip("()"))[0].strip(" _").replace(" ", "_")
    return "None" if word in _NOTHING else word[:_MAX_REASON]


def job_state(states: list[str]) -> str:
    """The one that squeue would print of a base state and its flags."""
    return next((state for state in _SHOWN_FIRST if state in states), states[0] if states else "UNKNOWN")


def node_state(base: str, flags: set[str]) -> str:
    """What sinfo prints for a base state and its flags, e.g. `draining`, `down*`."""
    silent = "*" if flags & {"NOT_RESPONDING", "NO_RESPOND"} else ""
    base = base.lower()
    busy = base in ("allocated", "mixed") or "COMPLETING" in flags
    if "DRAIN" in flags:
        word = "draining" if busy else "drained"
    elif "FAIL" in flags:
        word = "failing" if busy else "fail"
    elif "INVALID_REG" in flags:
        word = "inval"
    elif busy or base != "idle":
        word = "completing" if base == "idle" else base
    elif "MAINTENANCE" in flags or "MAINT" in flags:
        word = "maint"
    elif "RESERVED" in flags:
        word = "reserved"
    elif "PLANNED" in flags:
        word = "planned"
    else:
        word = "idle"
    return word + silent


def base_state(state: str) -> str:
    """sinfo's word without its marks: `down*`, `idle~`, `mixed-`, `allocated+`."""
    return state.rstrip("*~#!%$@^-+")
