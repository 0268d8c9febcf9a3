"""The end of an attempt that hangs: the first watchdog says so, all write down where their ranks stand, the first one
says whose fault it is, and then each ends its rank.

Nobody waits for anybody for longer than `dump_time`: a rank, a watchdog, or a node may be gone.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from xgen.hang.beat import read_beats
from xgen.hang.config import Config
from xgen.hang.files import append_event, outcome, write_first, write_whole
from xgen.hang.stacks import Trace, dump, main_stack
from xgen.hang.summary import Stand, header, place_of, say, summarise

_GRACE = 60.0  # seconds beside `dump_time` for the one who says whose fault it is
_NAP = 0.25


def declare(config: Config) -> bool:
    """Returns whether this is the first to say so. Raises OSError where the run directory cannot be written."""
    config.hang_dir.mkdir(exist_ok=True)
    return write_first(config.hang_dir / "declared", f"rank {config.rank}\n")


def carry_out(config: Config, stand: Stand, silent: float, decides: bool) -> None:
    """Write down where the rank stands, then end it; `decides` for the first. What cannot be written the log says,
    and the rank is ended all the same."""
    text = header(stand, config.pid) + "\n"
    try:
        text += dump(config.pid, Trace(config.trace_fd, config.main_thread), os.getpid())
        write_whole(config.hang_dir / f"rank-{config.rank}.txt", text)
    except OSError as error:
        _print(f"cannot write the stacks of rank {config.rank}: {error}")
    try:
        if decides:
            _decide(config, stand, silent)
        else:
            _await_decision(config, stand, silent, text)
    except OSError as error:
        _print(f"cannot record the hang: {error}")
    with suppress(ProcessLookupError):
        os.kill(config.pid, signal.SIGKILL)  # and this process goes with it


def _decide(config: Config, stand: Stand, silent: float) -> None:
    deadline = time.monotonic() + config.dump_time
    while len(_dumps(config)) < config.world_size and time.monotonic() < deadline:
        time.sleep(_NAP)
    beats = read_beats(config.run_dir, config.attempt)
    nodes = {rank.rank: beat.node for beat in beats for rank in beat.ranks}
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in _dumps(config)]
    summary = summarise(texts, config.world_size, nodes)
    reason = say(summary, silent, stand.phase, stand.step)
    odd = summary.odd or stand
    write_whole(config.hang_dir / "summary.txt", f"{reason}\n\n{summary.text}")
    _say_crashed(config, odd.rank, reason, odd.step)
    facts = {"run": config.run_dir.name, "attempt": config.attempt, "job_id": config.job_id, "reason": reason}
    more = {"step": odd.step or None, "seconds": round(silent, 1), "nodes": odd.node}
    append_event(config.run_dir / "events" / "watchdog.jsonl", {**facts, **more})
    _print(reason)
    write_whole(config.hang_dir / "decided", f"rank {odd.rank}\n")


def _await_decision(config: Config, stand: Stand, silent: float, text: str) -> None:
    deadline = time.monotonic() + config.dump_time + _GRACE
    while not (config.hang_dir / "decided").exists():
        if time.monotonic() > deadline:
            where = place_of(main_stack(text))
            said = f"hung: no sign of progress for {silent:.0f} s in phase {stand.phase}; this rank stands at {where}"
            _say_crashed(config, config.rank, said[:300], stand.step)
            return
        time.sleep(_NAP)


def _say_crashed(config: Config, rank: int, reason: str, step: int) -> None:
    """Of a rank that has said nothing of its end yet."""
    write_first(config.attempt_dir / f"outcome.{rank}.json", outcome(reason, step))


def _dumps(config: Config) -> list[Path]:
    return sorted(config.hang_dir.glob("rank-*.txt"))


def _print(text: str) -> None:
    print(f"xgen: {text}", file=sys.stderr, flush=True)
