"""Who sends a message: a file for each try in the run directory, written once, by whichever sender comes first.

`notified/FACT.CHANNEL.TRY` holds one line: when, who, and what came of it. A sender that was killed in the middle is
taken over after ten minutes: then the message may come twice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from xgen.runs import RunDir, write_atomic
from xgen.runs.rundir import write_once

PAUSES = (60.0, 300.0, 1800.0, 7200.0)  # seconds after each failed try; none follows the last
_KILLED = 600.0  # seconds after which a sender that said nothing more is dead
_SENDING = "sending"
SENT = "sent"


@dataclass(frozen=True)
class Try:
    """One try to send: `result` is sent, sending, or why not."""

    fact: str
    channel: str
    number: int
    time: float
    by: str
    result: str


def claim(run: RunDir, fact: str, channel: str, now: float) -> Path | None:
    """The file of the try that is ours now; None where there is nothing to do. Raises OSError."""
    folder = _folder(run)
    for number in range(1, len(PAUSES) + 2):
        file = folder / f"{fact}.{channel}.{number}"
        known = read_try(file)
        if known is None:
            folder.mkdir(exist_ok=True)
            return file if write_once(file, _line(_SENDING, now)) else None
        pause = _KILLED if known.result == _SENDING else (*PAUSES, 0.0)[number - 1]
        if known.result == SENT or now - known.time < pause:
            return None
    return None


def is_settled(run: RunDir, fact: str, channel: str) -> bool:
    """Whether nothing more comes of it: it was sent, or tried as often as we do."""
    last = None
    for number in range(1, len(PAUSES) + 2):
        known = read_try(_folder(run) / f"{fact}.{channel}.{number}")
        if known is None:
            return False
        if known.result == SENT:
            return True
        last = known
    return last is not None and last.result != _SENDING


def record(file: Path, result: str, now: float) -> None:
    """What came of a try. Raises OSError."""
    write_atomic(file, _line(result, now))


def tries(run: RunDir) -> list[Try]:
    """All that were made, in order of time. Raises OSError where the run cannot be read."""
    return sorted(_all(_folder(run)), key=lambda one: one.time)


def _all(folder: Path) -> Iterator[Try]:
    if folder.is_dir():
        for file in folder.iterdir():
            if not file.name.startswith(".") and (found := read_try(file)) is not None:
                yield found


def read_try(file: Path) -> Try | None:
    """None where there is none; one that is damaged counts as one that failed long ago."""
    fact, channel, number = (*file.name.rsplit(".", 2), "", "")[:3]
    if not number.isdecimal():
        return None
    try:
        known = json.loads(file.read_bytes())
        return Try(fact, channel, int(number), float(known["time"]), str(known["by"]), str(known["result"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return Try(fact, channel, int(number), 0.0, "", "damaged")


def _folder(run: RunDir) -> Path:
    return run.path / "notified"


def _line(result: str, now: float) -> str:
    return json.dumps({"time": round(now, 3), "by": f"{os.uname().nodename}:{os.getpid()}", "result": result}) + "\n"
