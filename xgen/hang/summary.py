"""Which ranks stand at the same place, and which one the others wait for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from xgen.hang.stacks import Frame, child_stack, main_stack, native_stack, section

_HEADER = re.compile(
    r"^rank (?P<rank>\d+) on (?P<node>\S+), process \d+: phase (?P<phase>\w+), step (?P<step>\d+), "
    r"sign (?P<count>\d+), silent for (?P<silent>\d+) s$"
)
# Where a rank stands that waits for the others: in a collective, or in what asks for one.
_WAITING_FILES = ("torch/distributed/", "xgen/train/agreement.py", "xgen/train/together.py", "xgen/hang/board.py")
_WAITING_NATIVE = re.compile(r"gloo::|c10d::|nccl|NCCL")
_MOST_FRAMES = 30
_SUCH = {"T": ", stopped by a signal", "D": ", in uninterruptible sleep"}


@dataclass(frozen=True)
class Stand:
    """Where one rank stands."""

    rank: int
    node: str
    phase: str
    step: int
    count: int  # signs of progress so far
    silent: int  # seconds
    state: str  # of its process, as the kernel writes it
    stack: tuple[Frame, ...]
    waits: bool  # for other ranks


@dataclass(frozen=True)
class Group:
    """Ranks with the same stack."""

    ranks: tuple[int, ...]
    stack: tuple[Frame, ...]
    waits: bool
    state: str  # of a process that is stopped, or waits in the kernel; else ''


@dataclass(frozen=True)
class Summary:
    """`odd` is the rank that the others wait for; None where no rank has left a word."""

    odd: Stand | None
    groups: tuple[Group, ...]  # the one that counts first
    missing: tuple[int, ...]  # ranks without a word
    text: str


def header(stand: Stand, pid: int) -> str:
    """The first line of a dump, which `read_stand` reads."""
    return (
        f"rank {stand.rank} on {stand.node}, process {pid}: phase {stand.phase}, step {stand.step}, "
        f"sign {stand.count}, silent for {stand.silent} s"
    )


def read_stand(text: str) -> Stand | None:
    """From a dump; None for what is none."""
    first, _, rest = text.partition("\n")
    found = _HEADER.match(first)
    if found is None:
        return None
    own, child = main_stack(rest), child_stack(rest)
    stack = child if child and found["phase"] == "command" else own or child
    native = native_stack(rest)
    waits = bool(_WAITING_NATIVE.search(native)) or any(
        name in frame.file for frame in stack[:1] for name in _WAITING_FILES
    )
    return Stand(
        int(found["rank"]), found["node"], found["phase"], int(found["step"]), int(found["count"]),
        int(found["silent"]), section(rest, "state")[:1], stack, waits,
    )  # fmt: skip


def summarise(dumps: Sequence[str], world_size: int, nodes: Mapping[int, str]) -> Summary:
    """Of what the ranks have written. `nodes`: of ranks, as far as anybody knows, for those that wrote nothing."""
    stands = sorted((stand for text in dumps if (stand := read_stand(text))), key=lambda one: one.rank)
    missing = tuple(sorted(set(range(world_size)) - {stand.rank for stand in stands}))
    by_stack: dict[tuple[tuple[Frame, ...], bool, str], list[Stand]] = {}
    for stand in stands:
        state = stand.state if stand.state in _SUCH else ""
        by_stack.setdefault((stand.stack, stand.waits, state), []).append(stand)
    # First who cannot go on, then who does not wait for others, then who has done least, then who is alone with it.
    every = sorted(
        by_stack.items(), key=lambda item: (not item[0][2], item[0][1], min(one.count for one in item[1]), len(item[1]))
    )
    groups = tuple(Group(tuple(one.rank for one in some), *key) for key, some in every)
    odd = min(every[0][1], key=lambda one: (one.count, one.rank)) if every else None
    return Summary(odd, groups, missing, _text(groups, odd, missing, nodes, world_size))


def say(summary: Summary, silent: float, phase: str, step: int) -> str:
    """The reason of the attempt's end, one line of at most 300 characters."""
    begin = f"hung: no step for {silent:.0f} s" if phase == "train" else f"hung: no sign of progress for {silent:.0f} s"
    begin += f" in phase {phase}" + (f" at step {step:,}" if step else "")
    odd = summary.odd
    if odd is None:
        return f"{begin}; no rank could say where it stood"
    stands = {"T": "was stopped at", "D": "waits in the kernel at"}.get(odd.state, "stands at")
    said = f"rank {odd.rank} on {odd.node} {stands} {place_of(odd.stack)}"
    if summary.missing:  # whose process beside it is gone or stands still too: that is who the others wait for
        gone = f"no word of {name_ranks(summary.missing)}"
        said = f"{gone}; {said}" if odd.waits else f"{said}; {gone}"
    others = [group for group in summary.groups if odd.rank not in group.ranks]
    if others:
        largest = max(others, key=lambda group: len(group.ranks))
        said += f"; {name_ranks(largest.ranks)} at {place_of(largest.stack)}"
    return f"{begin}; {said}"[:300]


def place_of(stack: Sequence[Frame]) -> str:
    """The innermost line of the program, and what of a library it is in."""
    if not stack:
        return "an unknown place"
    own = next((frame for frame in stack if not frame.is_library), stack[0])
    return str(own) if own is stack[0] else f"{own} (in {stack[0]})"


def name_ranks(ranks: Sequence[int]) -> str:
    """`ranks 0-2,5`, of sorted numbers."""
    return f"rank{'s' * (len(ranks) > 1)} {ranges(ranks)}"


def ranges(ranks: Sequence[int]) -> str:
    """`0-2,5`; of more than a few pieces the first."""
    pieces: list[list[int]] = []
    for rank in ranks:
        if pieces and pieces[-1][1] == rank - 1:
            pieces[-1][1] = rank
        else:
            pieces.append([rank, rank])
    said = [str(a) if a == b else f"{a}-{b}" for a, b in pieces]
    return ",".join(said[:8]) + (",…" if len(said) > 8 else "")


def _text(
    groups: Sequence[Group], odd: Stand | None, missing: Sequence[int], nodes: Mapping[int, str], world_size: int
) -> str:
    lines = []
    if missing:
        where = ", ".join(sorted({nodes[rank] for rank in missing if rank in nodes}))
        lines += [f"no word of {name_ranks(missing)}{' on ' if where else ''}{where}", ""]
    for group in groups:
        num, waits = len(group.ranks), _SUCH.get(group.state, ", which wait for others" if group.waits else "")
        lines.append(f"{num} of {world_size} rank{'s' * (world_size > 1)}: {ranges(group.ranks)}{waits}")
        if odd and odd.rank in group.ranks and len(groups) > 1:
            lines[-1] += "  <- the others wait for " + ("this one" if num == 1 else "these")
        lines += [f"  {frame}" for frame in group.stack[:_MOST_FRAMES]] or ["  no Python stack; see rank-N.txt"]
        lines.append("")
    return "\n".join(lines)
