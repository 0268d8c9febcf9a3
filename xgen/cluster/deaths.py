"""Why an attempt died: the first error over all ranks, with its traceback, and what is known about such an error."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from xgen.runs import RunDir
from xgen.runs.outcome import read_rank_outcomes

_LABEL = re.compile(r"^ *(\d+): ?(.*)$")  # srun --label
_SRUN = re.compile(r"srun: error: (?P<node>\S+): tasks? (?P<tasks>[\d,-]+): (?P<how>.+)$")
_TRACEBACK = "Traceback (most recent call last):"
_MOST = 64 << 20  # bytes of a log that are read: an error that comes first is near its begin or its end
_END = 4 << 20  # bytes
_LINES = 12
_HANG = "attempts/{:04d}/hang/summary.txt"

# What the first rank to die says where the node may be to blame, by kind: host/health.sh reads these too, so they are
# extended regular expressions of grep as well, upper case or lower.
NODE_DEATHS: Mapping[str, str] = {
    "gpu": r"uncorrectable ECC|fallen off the bus|\bXid\b",
    "cuda": r"CUDA error: (unknown error|an illegal instruction)",
    "unfit": r"unhealthy: node ",
    "bus": r"Bus error",
    "hang": r"^hung: ",
}
SURE_DEATHS = ("gpu", "unfit", "lost")  # the others may be the program's own fault; `lost` are those that SLURM lost

LOST_NODE = "SLURM lost a node"
_LOST = r"Node failure on|DUE TO NODE FAILURE"


class Cause(NamedTuple):
    """What a line of the log says, what it means, what to do, and the key of the spec that sets the limit. `of_first`:
    only the first error itself may say so, for what others say of it follows from that one."""

    says: str
    meaning: str
    fix: str
    key: str = ""
    of_first: bool = False


# The first line of the first rank counts, so order is by how much a text says: what follows from another error stands
# below it. docs/why.md has them too.
CAUSES = (
    Cause(
        r"oom[-_ ]kill|Out Of Memory.*slurmstepd|exceeded memory limit",
        "the node's memory for the job is used up",
        "write more resources.memory, fewer data.workers, or checkpoint.mode: sync",
        "resources.memory",
    ),
    Cause(
        r"CUDA out of memory|torch\.OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED",
        "the GPU's memory is used up",
        "xgen plan says what takes it; more activation_checkpointing, or a smaller micro_batch",
    ),
    Cause(
        f"{NODE_DEATHS['gpu']}|{NODE_DEATHS['cuda']}",
        "a GPU of the node is broken",
        "tell the administrators which node it was",
    ),
    Cause(
        _LOST,
        LOST_NODE,
        "nothing in the spec; sinfo -R has the node, and xgen nodes exclude NODE keeps off it",
    ),
    Cause(
        r"Watchdog caught collective operation timeout|NCCL timeout|Timed out waiting \d+ms for (recv|send)",
        "ranks waited for one that did not come",
        "the rank that says nothing of a time-out is the one: look at its lines in out.log",
    ),
    Cause(
        r"No space left on device|Disk quota exceeded|ENOSPC|EDQUOT",
        "a disk is full, or a quota",
        "make room in the run root; xgen checkpoints says what checkpoints take",
    ),
    Cause(
        r"container\.shm: /dev/shm",
        "a node has less room in /dev/shm than the spec wants",
        "write less, or have /dev/shm enlarged or tidied",
        "container.shm",
    ),
    Cause(f"{NODE_DEATHS['bus']}|/dev/shm", "/dev/shm is too small", "write container.shm: 16GB", "container.shm"),
    Cause(
        r"ModuleNotFoundError|ImportError|command not found",
        "a module or a program is not there",
        "xgen image check IMAGE says what an image lacks; build it anew, or correct the name",
        "container.image",
    ),
    Cause(
        r"execve\(\): .*No such file",
        "the program that starts the tasks is not there",
        "correct container.python in the profile, and in cluster.yaml of the run",
    ),
    Cause(
        r"loss is (?:nan|not finite)|non_finite|Diverged",
        "the training diverged",
        "look at metrics/steps.jsonl; a lower lr.peak, or guard: {non_finite: rollback}",
    ),
    Cause(r"Connection (?:refused|reset)|Broken pipe|EOFError", "another rank, or a server, went away first", ""),
    Cause(
        r"Permission denied|Read-only file system",
        "it may not write there",
        "mount it for writing, or mend its mode",
    ),
    Cause(
        r"Segmentation fault|SIGSEGV|signal 11",
        "a library crashed",
        "xgen logs RUN --err shows where; try another version of it, or another image",
    ),
    Cause(
        r"signal 9\b|: Killed$",
        "something outside killed it: a person, or the system for want of memory",
        "ask who did, and for the system's word: dmesg on the node",
        of_first=True,  # srun kills the other tasks by the same signal
    ),
)
# Of texts in lower case: to ignore the case of a long log takes four times as long.
_PATTERNS = [(re.compile(cause.says.lower()), cause) for cause in CAUSES]
_ANY = re.compile("|".join(pattern.pattern for pattern, cause in _PATTERNS if not cause.of_first))


@dataclass(frozen=True)
class Death:
    """The first error of an attempt. `rank` is None where nobody knows whose it is, `node` '' likewise."""

    rank: int | None
    error: str  # one line
    lines: tuple[str, ...]  # the end of its traceback, or the lines that say it
    meaning: str = ""
    fix: str = ""
    key: str = ""  # of the spec, that sets the limit
    node: str = ""


def first_error(run: RunDir, attempt: int) -> Death | None:
    """Of the ranks that say how they ended, the first that crashed; else what srun and the log say. None where nothing
    is found. Raises OSError when the run cannot be read."""
    outcomes = read_rank_outcomes(run, attempt)
    bad = [rank for rank, outcome in outcomes.items() if outcome.status in ("crashed", "refused")]
    lines = list(_lines(run.attempt_dir(attempt) / "err.log"))
    if bad:
        rank = min(bad, key=lambda one: outcomes[one].time)
        outcome = outcomes[rank]
        own = [text for of, text in lines if of == rank]
        node = _node(rank, lines)
        if stacks := _stacks(run, attempt, outcome.reason):
            stood = ("it stood still", f"all stacks: {_HANG.format(attempt)}")
            return Death(rank, outcome.reason, stacks, *stood, node=node)
        told, error = _traceback(own), outcome.reason
        if error.startswith("the command ") and told[:1] == (_TRACEBACK,):  # of which the task knows no more
            error = f"{told[-1].strip()} ({error})"
        if not own:
            told = tuple(text for of, text in _lines(run.attempt_dir(attempt) / "out.log") if of == rank)[-_LINES:]
        told = tuple(line for line in told if line.strip() and line != f"xgen: {error}")
        return _with_cause(Death(rank, error, told, node=node), [outcome.reason, *own])
    for number, (_, text) in enumerate(lines):
        if (found := _SRUN.search(text)) and "Terminated" not in found["how"]:
            rank = int(re.split("[,-]", found["tasks"])[0])
            own = [text for of, text in lines if of == rank]
            said = f"task {rank} on {found['node']}: {found['how']}"
            before = [text for _, text in lines[max(0, number - _LINES) : number + 1]]
            death = Death(rank, said, tuple(_traceback(own) or before))
            return _with_cause(death, (text for _, text in lines))
    for _, text in lines:
        if _ANY.search(text.lower()):
            return _with_cause(Death(None, text.strip(), ()), [text])
    unlabelled = [text for of, text in lines if of is None]
    if _TRACEBACK in unlabelled:  # of nobody's rank: what starts the tasks, or what the site put between
        block = _traceback(unlabelled)
        return Death(None, block[-1].strip(), block)
    return None


def lost_a_node(run: RunDir, attempt: int) -> bool:
    """Whether SLURM says so at the end of the attempt's log. Raises OSError when the run cannot be read."""
    with suppress(FileNotFoundError), (run.attempt_dir(attempt) / "err.log").open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - _END))
        return re.search(_LOST.encode(), log.read()) is not None
    return False


def _node(rank: int, lines: Iterable[tuple[int | None, str]]) -> str:
    """Where it ran: srun names it with the tasks that ended badly there."""
    for _, text in lines:
        if found := _SRUN.search(text):
            for ends in found["tasks"].split(","):
                first, _, last = ends.partition("-")
                if int(first) <= rank <= int(last or first):
                    return found["node"]
    return ""


def _stacks(run: RunDir, attempt: int, reason: str) -> tuple[str, ...]:
    """Of ranks that hung (`xgen.hang`): those of the group that the others wait for come first."""
    if not reason.startswith("hung: "):
        return ()
    try:
        text = (run.path / _HANG.format(attempt)).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ()
    return tuple(line for line in text.splitlines()[1:] if line)[:_LINES]


def _lines(log: Path) -> Iterator[tuple[int | None, str]]:
    """Rank and text of each line; of a log that is too long the first half and the last of what is read."""
    try:
        with log.open("rb") as file:
            size = log.stat().st_size
            content = file.read(_MOST if size <= _MOST else _MOST // 2)
            if size > _MOST:
                file.seek(size - _MOST // 2)
                content += b"\n" + file.read()
    except FileNotFoundError:
        return
    for line in content.decode(errors="replace").splitlines():
        found = _LABEL.match(line)
        yield (int(found[1]), found[2]) if found else (None, line)


def _traceback(lines: list[str]) -> tuple[str, ...]:
    """The end of the last one: what ended the rank."""
    begins = [number for number, text in enumerate(lines) if text.startswith(_TRACEBACK)]
    if not begins:
        return tuple(lines[-_LINES:])
    block = [lines[begins[-1]]]
    for number, text in enumerate(lines[begins[-1] + 1 :], begins[-1] + 1):
        block.append(text)
        if text and not text.startswith((" ", "\t")):
            block[-1] = _whole(text, lines[number + 1 :])
            break
    return tuple(block) if len(block) <= _LINES else (block[0], "  …", *block[-(_LINES - 2) :])


def _whole(text: str, after: list[str]) -> str:
    """`KeyError: 'loss'`: Python writes its parts one by one, and `srun --label --unbuffered` may end a line after each
    (seen in 22.05)."""
    for part in after[:2]:
        if not (text.endswith(": ") or (":" not in text and part.startswith(":"))):
            break
        text += part
    return text


def _with_cause(death: Death, lines: Iterable[str]) -> Death:
    first, whole = death.error.lower(), "\n".join(lines).lower()
    for pattern, cause in _PATTERNS:
        if pattern.search(first if cause.of_first else whole):
            return replace(death, meaning=cause.meaning, fix=cause.fix, key=cause.key)
    return death
