"""What a team knows of its nodes: which are excluded until when, and which jobs died by them (docs/nodes.md).

The files lie in `.nodes` beside the runs, one for each fact, each renamed into place: there is no lock, and of two
writers the last one's file stays whole. The batch script writes them too (host/health.sh): each is one line.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from xgen.cluster import slurm
from xgen.cluster.deaths import SURE_DEATHS
from xgen.runs import write_atomic
from xgen.runs.users import user_name
from xgen.spec import Job, Profile

Record = TypeVar("Record", bound=BaseModel)


class Excluded(BaseModel):
    """The last decision about a node. It counts until `until`; whoever clears it sets that to the present."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    node: str
    since: FiniteFloat
    until: FiniteFloat
    by: str  # user
    run: str = ""  # that found it out; '' for a person
    reason: str = ""


class Blame(BaseModel):
    """A death that the node may be to blame for."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    node: str
    kind: str  # of NODE_DEATHS
    run: str
    attempt: int
    job_id: str = ""
    time: FiniteFloat
    reason: str = ""


@dataclass(frozen=True)
class NodeRecord:
    """A node of which something is on record. `deaths` are those that count towards its exclusion."""

    node: str
    excluded: Excluded | None  # None: it is not, now
    deaths: int
    blames: tuple[Blame, ...]  # within the window, oldest first

    @property
    def runs(self) -> list[str]:
        """The evidence, each once."""
        own = [self.excluded.run] if self.excluded and self.excluded.run else []
        return list(dict.fromkeys([*own, *(blame.run for blame in self.blames)]))


def nodes_dir(run_root: Path) -> Path:
    return run_root / ".nodes"


def read_nodes(run_root: Path, window: int, now: float) -> list[NodeRecord]:
    """Nodes that are excluded, newest first, then those that were blamed within `window` seconds. Raises OSError when
    the folder is there and cannot be read."""
    decisions = {one.node: one for one in _read(nodes_dir(run_root).glob("*.json"), Excluded)}
    blames = sorted(_read(nodes_dir(run_root).glob("blame/*/*.json"), Blame), key=lambda one: one.time)
    blames = [one for one in blames if one.time > now - window]
    records = []
    for node in sorted({*decisions, *(one.node for one in blames)}):
        decision = decisions.get(node)
        mine = tuple(one for one in blames if one.node == node)
        active = decision if decision and decision.until > now else None
        if active or mine:
            records.append(NodeRecord(node, active, count_deaths(mine, blames, decision), mine))
    return sorted(records, key=lambda one: (one.excluded is None, -one.excluded.since if one.excluded else 0))


def count_deaths(mine: Sequence[Blame], everywhere: Iterable[Blame], decision: Excluded | None) -> int:
    """As host/health.sh counts: evidence of broken hardware each time; what may be the program's own fault once a run,
    and not if the run died like that on another node too. What led to a decision is spent."""
    elsewhere = {(one.run, one.kind) for one in everywhere if mine and one.node != mine[0].node}
    new = [one for one in mine if decision is None or one.time > decision.since]
    sure = sum(one.kind in SURE_DEATHS for one in new)
    return sure + len({one.run for one in new if one.kind not in SURE_DEATHS and (one.run, one.kind) not in elsewhere})


def _read(files: Iterable[Path], kind: type[Record]) -> list[Record]:
    """What is no record (a file of a later version, one that is being removed) is passed over."""
    found = []
    for file in files:
        if not file.name.startswith("."):
            with suppress(FileNotFoundError, PermissionError, ValidationError):
                found.append(kind.model_validate_json(file.read_bytes()))
    return found


def exclude(run_root: Path, node: str, seconds: int, reason: str, now: float) -> Excluded:
    """A person's decision. Raises OSError."""
    decision = Excluded(node=node, since=now, until=now + seconds, by=user_name(os.getuid()), reason=reason)
    return _decide(run_root, decision)


def clear(run_root: Path, node: str, now: float) -> Excluded:
    """Give a node to jobs again, and forget the deaths so far. Raises OSError."""
    decision = Excluded(node=node, since=now, until=now, by=user_name(os.getuid()), reason="cleared")
    return _decide(run_root, decision)


def _decide(run_root: Path, decision: Excluded) -> Excluded:
    folder = nodes_dir(run_root)
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(PermissionError):
            folder.chmod(0o775)  # the umask of a person may keep the group out
    write_atomic(folder / f"{decision.node}.json", decision.model_dump_json() + "\n")
    return decision


@dataclass(frozen=True)
class Exclusions:
    """What a submission does not take: the `nodes`; and the `left` that are on the list but may be taken, with the
    reason why."""

    nodes: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    why_left: str = ""

    def __str__(self) -> str:
        parts = [f"not on {', '.join(self.nodes)}"] if self.nodes else []
        if self.why_left:
            named = ", ".join(self.left) if self.left else "the exclude list"
            parts.append(f"{named} not excluded: {self.why_left}")
        return "; ".join(parts) + (" (xgen nodes)" if parts else "")


def exclusions(job: Job, profile: Profile, stage: int, now: float) -> Exclusions:
    """Of the job of a stage. Never so many that it cannot start: those excluded last come first. Where nobody says
    which nodes there are none is excluded: a submission does not wait for that."""
    if profile.scheduler != "slurm":
        return Exclusions()
    try:
        on_list = [one.node for one in read_nodes(Path(profile.run_root), 0, now) if one.excluded]
    except OSError as error:
        return Exclusions(why_left=f"{error.filename}: {error.strerror}")
    if not on_list:
        return Exclusions()
    resources = job.jobs[stage][1]
    partition = resources.partition or profile.default_partition
    try:
        known = partition_nodes(partition)
    except slurm.SchedulerError as error:
        return Exclusions(left=tuple(on_list), why_left=str(error))
    return choose(on_list, known, profile.nodes.most, resources.nodes, partition)


def choose(on_list: Sequence[str], known: Collection[str], most: float, num_nodes: int, partition: str) -> Exclusions:
    """Pure part of `exclusions`; `kept_off` in host/health.sh chooses alike."""
    ours = [node for node in on_list if node in known]
    allowed = max(1, len(known) * round(most * 1000) // 1000)
    why = f"at most {allowed} of the {len(known)} nodes of partition {partition} may be (nodes.most in the profile)"
    if len(known) - min(allowed, len(ours)) < num_nodes:
        allowed = max(0, len(known) - num_nodes)
        why = f"the job needs {num_nodes} of the {len(known)} nodes of partition {partition}"
    left = tuple(ours[allowed:])
    return Exclusions(tuple(ours[:allowed]), left, why if left else "")


def partition_nodes(partition: str) -> set[str]:
    """Names of the nodes of a partition. Raises SchedulerError."""
    return set(slurm.command("sinfo", "--noheader", "--Node", f"--partition={partition}", "--format=%N").split())


def all_nodes() -> set[str]:
    """Names of all nodes of the cluster. Raises SchedulerError."""
    return set(slurm.command("sinfo", "--noheader", "--all", "--Node", "--format=%N").split())
