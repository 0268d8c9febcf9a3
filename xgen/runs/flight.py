"""What torch's flight recorder wrote down when an attempt hung: which collective each rank was in.

`attempts/N/flight/BACKEND/rank_R`, a pickle a rank. It is read without the right to make anything but numbers and
text: whoever may write into a run directory must not run code as the one who reads it.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xgen.hang.summary import name_ranks
from xgen.runs.rundir import RunDir

_MOST_GROUPS = 8
_TOOL_FILES = ("distributed_c10d.py", "c10d_logger.py", "_functional_collectives.py")


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a record of collectives")


@dataclass(frozen=True)
class Call:
    """The newest collective of a rank in one group; `done` where it had ended."""

    rank: int
    group: str
    number: int
    name: str
    place: str  # file:line that called it, '' where that is not known
    done: bool


def flight_folder(run: RunDir, attempt: int) -> Path:
    return run.attempt_dir(attempt) / "flight"


def collectives(run: RunDir, attempt: int) -> list[str]:
    """A line for each group of ranks of which some wait for others, with where each stands; by each rank's newest
    call."""
    lines = []
    for folder in sorted(flight_folder(run, attempt).glob("*/")):
        calls = [call for file in sorted(folder.glob("rank_*")) for call in _calls(file)]
        for group in dict.fromkeys(call.group for call in calls):
            if said := _say(folder.name, group, [call for call in calls if call.group == group]):
                lines.append(said)
    return lines[:_MOST_GROUPS]


def _calls(file: Path) -> Iterator[Call]:
    """The newest of each group; nothing of a file that is no record."""
    rank = file.name.removeprefix("rank_")
    try:
        record = _Plain(io.BytesIO(file.read_bytes())).load()
        newest: dict[str, Mapping[str, Any]] = {}
        for entry in record["entries"]:
            group = " ".join(dict.fromkeys(map(str, entry["process_group"])))
            if group not in newest or entry["record_id"] > newest[group]["record_id"]:
                newest[group] = entry
        found = [
            Call(
                int(rank),
                group,
                int(entry["p2p_seq_id"] if entry.get("is_p2p") else entry["collective_seq_id"]),
                str(entry["profiling_name"]).partition(":")[2] or str(entry["profiling_name"]),
                _place(entry.get("frames") or ()),
                entry["state"] == "completed" or bool(entry.get("retired")),  # of gloo only the second is ever said
            )
            for group, entry in newest.items()
        ]
    except Exception:  # noqa: BLE001 - torn, of another version, or hostile: it says nothing
        return
    yield from found


def _place(frames: Any) -> str:
    """Where the call stands that is not torch's own."""
    for frame in frames:
        name = str(frame["filename"])
        if not name.endswith(_TOOL_FILES):
            return f"{'/'.join(Path(name).parts[-2:])}:{frame['line']}"
    return ""


def _say(backend: str, group: str, calls: list[Call]) -> str:
    last = max(call.number for call in calls)
    if all(call.done for call in calls) and len({call.number for call in calls}) == 1:
        return ""
    stands: dict[tuple[int, str, str, bool], list[int]] = {}
    for call in calls:
        stands.setdefault((call.number, call.name, call.place, call.done), []).append(call.rank)
    parts = []
    for (number, name, place, done), ranks in sorted(stands.items(), key=lambda item: (item[0][0], item[1])):
        where = f"{name} {number}" + (f" ({place})" if place else "")
        what = f"behind, after {where}" if number < last else f"after {where}" if done else f"in {where}"
        parts.append(f"{name_ranks(sorted(ranks))} {what}")
    return f"{backend} group {group}: {'; '.join(parts)}"
