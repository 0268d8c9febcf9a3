"""How far the shards of a job array are, from the marker that the host leaves of each that has ended: two listings,
whatever their number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from xgen.runs.rundir import RunDir, write_atomic


def finished_shards(run: RunDir, stage: str) -> frozenset[int]:
    """Numbers of the shards of a stage that have finished."""
    return _numbers(_folder(run, stage) / ".finished")


def given_up_shards(run: RunDir, stage: str) -> frozenset[int]:
    """Numbers of the shards of a stage that are not tried again, until a person resumes the run."""
    return _numbers(_folder(run, stage) / ".given-up")


def has_ended(run: RunDir, stage: str, shard: int) -> bool:
    """Whether a shard has finished or is given up."""
    return any((_folder(run, stage) / marker / str(shard)).exists() for marker in (".finished", ".given-up"))


def why_given_up(run: RunDir, stage: str, shard: int) -> str:
    """The reason, one line; '' for one that is not given up."""
    try:
        return (_folder(run, stage) / ".given-up" / str(shard)).read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return ""


def forget_ended(run: RunDir, stage: str, *, finished: bool) -> None:
    """Those that were given up are tried again, and where they serve the run, the `finished` ones too."""
    for marker in (".given-up", *([".finished"] if finished else [])):
        for shard in _numbers(_folder(run, stage) / marker):
            (_folder(run, stage) / marker / str(shard)).unlink(missing_ok=True)


def set_shards_aside(run: RunDir, stage: str) -> Callable[[], object]:
    """What there is of the shards of a stage gets another name: all begin anew. Returns what brings it back."""
    folder, number = _folder(run, stage), 1
    if not folder.exists():
        return lambda: None
    while (aside := folder.with_name(f"{folder.name}.before-{number}")).exists():
        number += 1
    folder.rename(aside)
    return lambda: aside.rename(folder)


def mark_durable(run: RunDir, step: int) -> None:
    """So many results of a shard are complete, which counts as a checkpoint: it gets on, and is not given up. One
    folder that is renamed: a shard of a hundred thousand results has no need of as many."""
    place = run.checkpoints_dir
    newest = max((int(path.name.removeprefix("step-")) for path in place.glob("step-*")), default=0)
    if step <= newest:
        return
    before, after = place / f"step-{newest}", place / f"step-{step}"
    if newest:
        before.rename(after)
        return
    after.mkdir(parents=True)
    write_atomic(after / "manifest.json", "{}\n")


def _folder(run: RunDir, stage: str) -> Path:
    return run.shard(stage, 0).path.parent


def _numbers(folder: Path) -> frozenset[int]:
    try:
        return frozenset(int(path.name) for path in folder.iterdir() if path.name.isdecimal())
    except FileNotFoundError:
        return frozenset()
