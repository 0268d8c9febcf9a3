"""Work on the checkpoints of a run from outside of it: what is there, what is sound, what may go. No torch.

What goes is renamed first, to a hidden name that no attempt takes for a checkpoint and that the next one removes: a
kill at any moment leaves every checkpoint whole or gone.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from xgen.runs import RunDir
from xgen.train.manifest import MANIFEST, Fault, FileEntry, Manifest, sync_folder, verify
from xgen.train.retention import Summary, keep_steps

# broken: a step's folder whose manifest is gone or torn, or, once it was read, with any other fault.
State = Literal["complete", "verified", "broken", "rejected", "rolled back", "unfinished"]
_NAME = re.compile(r"step-(?P<step>\d+)(?:\.(?P<aside>rejected|rolled-back)-(?P<number>\d+))?")
_UNFINISHED = re.compile(r"\.step-(?P<step>\d+)\..+\.tmp")
_ASIDE: dict[str, State] = {"rejected": "rejected", "rolled-back": "rolled back"}
_THREADS = 8  # what one file system client is worth; checksums run beside each other, the GIL is not held
Tick = Callable[[int], None]  # bytes read so far


class Unsafe(Exception):  # noqa: N818 - a refusal
    """A deletion that would leave the run without a checkpoint that verifies."""


@dataclass(frozen=True)
class Checkpoint:
    """One folder in a run's `checkpoints/`. Sizes are bytes, times seconds since the epoch."""

    folder: Path
    step: int
    state: State
    size: int
    saved_at: float
    manifest: Manifest | None = None  # also None for one whose manifest is a program's own
    faults: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def counts(self) -> bool:
        """Whether a resume would try it, as far as is known."""
        return self.state in ("complete", "verified")


@dataclass(frozen=True)
class Rule:
    """Which complete checkpoints stay: the newest `keep`, those of every so many steps, the best by training loss."""

    keep: int
    keep_every: int = 0
    keep_best: int = 0


def survey(run: RunDir, *, foreign: bool = False) -> list[Checkpoint]:
    """All checkpoints of a run in order of their steps, by their names and manifests alone; nothing is checksummed.

    `foreign`: manifests may be those of another program, which say nothing here. Raises OSError when the folder cannot
    be read.
    """
    found = []
    for folder in _folders(run.checkpoints_dir):
        with suppress(FileNotFoundError):  # the trainer, or another prune, took it away meanwhile
            checkpoint = _look_at(folder, foreign)
            if checkpoint is not None:
                found.append(checkpoint)
    return sorted(found, key=lambda c: (c.step, c.name))


def _folders(parent: Path) -> list[Path]:
    try:
        return [path for path in parent.iterdir() if path.is_dir()]
    except FileNotFoundError:
        return []


def _look_at(folder: Path, foreign: bool) -> Checkpoint | None:
    modified = folder.stat().st_mtime
    if match := _UNFINISHED.fullmatch(folder.name):
        return Checkpoint(folder, int(match["step"]), "unfinished", _size(folder), modified)
    match = _NAME.fullmatch(folder.name)
    if match is None:
        return None
    state: State = _ASIDE.get(match["aside"] or "", "complete")
    manifest: Manifest | None = None
    faults: tuple[str, ...] = ()
    try:
        manifest = Manifest.read(folder)
        modified = manifest.saved_at or modified
    except Fault as fault:
        if not (foreign and (folder / MANIFEST).is_file()):
            state = "broken" if state == "complete" else state
            faults = (str(fault),)
        folder.stat()  # FileNotFoundError where it is not the manifest that is gone
    return Checkpoint(folder, int(match["step"]), state, _size(folder), modified, manifest, faults)


def check(checkpoints: Sequence[Checkpoint], tick: Tick = lambda _: None) -> list[Checkpoint]:
    """The same checkpoints after every byte of them was read: `verified`, or `broken` with every fault.

    Those set aside keep their state and get their faults; those without a manifest stay as they are.
    """
    work = [(c, entry) for c in checkpoints if c.manifest for entry in c.manifest.files]
    faults: dict[Path, list[str]] = {c.folder: list(c.faults) for c in checkpoints}
    done = 0
    with ThreadPoolExecutor(_THREADS) as pool:
        try:
            for (checkpoint, entry), fault in zip(
                work, pool.map(lambda item: _fault(item[0].folder, item[1]), work), strict=True
            ):
                faults[checkpoint.folder] += [fault] if fault else []
                done += entry.size
                tick(done)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [_checked(c, tuple(faults[c.folder])) for c in checkpoints]


def _fault(folder: Path, entry: FileEntry) -> str:
    try:
        verify(folder, entry)
    except Fault as fault:
        return str(fault)
    return ""


def _checked(checkpoint: Checkpoint, faults: tuple[str, ...]) -> Checkpoint:
    if not checkpoint.counts or checkpoint.manifest is None:
        return replace(checkpoint, faults=faults)
    return replace(checkpoint, faults=faults, state="broken" if faults else "verified")


def kept_steps(checkpoints: Iterable[Checkpoint], rule: Rule) -> set[int]:
    """The steps that the rule keeps; the newest is always among them."""
    return keep_steps(_summaries(checkpoints), rule.keep, rule.keep_every, rule.keep_best)


def reasons(checkpoints: Sequence[Checkpoint], rule: Rule) -> dict[int, list[str]]:
    """Why the rule keeps a step, in the words of the spec; a step that it does not keep is not there."""
    summaries = _summaries(checkpoints)
    rules = {
        f"last {rule.keep}": keep_steps(summaries, rule.keep, 0, 0),
        f"every {rule.keep_every}": {s.step for s in summaries if rule.keep_every and s.step % rule.keep_every == 0},
        # The newest stays whatever the rule: here that is one that does not exist.
        f"best {rule.keep_best}": keep_steps([*summaries, Summary(1 << 62, None)], 0, 0, rule.keep_best),
    }
    return {
        step: [name for name, steps in rules.items() if step in steps] for step in sorted(kept_steps(checkpoints, rule))
    }


def _summaries(checkpoints: Iterable[Checkpoint]) -> list[Summary]:
    return [Summary(c.step, c.manifest.loss) for c in checkpoints if c.counts and c.manifest]


def choose(
    checkpoints: Sequence[Checkpoint],
    rule: Rule,
    also: Sequence[Checkpoint],
    is_sound: Callable[[Checkpoint], bool],
) -> list[Checkpoint]:
    """What may be deleted under a rule, and of `also`. Of the complete ones that stay one at least is sound, as
    `is_sound` finds by reading it; it is asked only where something is to be deleted.

    Raises Unsafe when no complete checkpoint is sound.
    """
    kept = kept_steps(checkpoints, rule)
    complete = [c for c in checkpoints if c.counts]
    doomed = [c for c in complete if c.step not in kept]
    if not doomed and not also:
        return []
    if any(is_sound(c) for c in reversed(complete) if c.step in kept):
        return [*doomed, *also]
    spared = next((c for c in reversed(doomed) if is_sound(c)), None)
    if spared is None:
        raise Unsafe("no complete checkpoint verifies")
    return [*(c for c in doomed if c is not spared), *also]


def delete(checkpoint: Checkpoint) -> int:
    """Take the name away, then the files. Returns the bytes that this freed: 0 where another was faster, and nothing
    for files that a fork shares. Raises OSError."""
    folder = checkpoint.folder
    if not folder.name.endswith(".old.tmp"):  # the trainer's name for what is being deleted
        # An unfinished one too: a writer that outlived its attempt must not publish it half emptied.
        leaving = folder.with_name(f".{folder.name.lstrip('.')}.{os.getpid()}.old.tmp")
        try:
            folder.rename(leaving)
        except FileNotFoundError:
            return 0
        sync_folder(folder.parent)
        folder = leaving
    freed = sum(s.st_size for s in _stats(folder) if s.st_nlink == 1)
    while folder.exists():
        with suppress(FileNotFoundError):  # two may clear up at once
            shutil.rmtree(folder)
    return freed


def set_aside(checkpoints: Iterable[Checkpoint]) -> list[str]:
    """Rename to `step-N.rolled-back-K`, the newest first: cut short, what is left is a run of older steps. Returns the
    new names. Raises OSError."""
    names = []
    for checkpoint in sorted(checkpoints, key=lambda c: c.step, reverse=True):
        folder, number = checkpoint.folder, 1
        while (aside := folder.with_name(f"{folder.name}.rolled-back-{number}")).exists():
            number += 1
        folder.rename(aside)
        sync_folder(folder.parent)
        names.append(aside.name)
    return names


def carry(source: Path, target: Path) -> Literal["linked", "copied"]:
    """The checkpoint `source` at `target` too, the manifest last: hard links where the file system makes them, copies
    that were read back elsewhere. Raises FileNotFoundError when it is deleted meanwhile, OSError when it cannot be
    copied."""
    how: Literal["linked", "copied"] = "linked"
    files = sorted((p for p in source.rglob("*") if p.is_file()), key=lambda p: p.name == MANIFEST)
    if not any(p.name == MANIFEST for p in files):
        raise FileNotFoundError(2, os.strerror(2), str(source / MANIFEST))
    for file in files:
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(file, place)
        except FileNotFoundError:
            raise
        except OSError:  # another file system, one without links, or files of somebody else (protected_hardlinks)
            how = "copied"
            shutil.copyfile(file, place)
            with place.open("rb") as copy:
                os.fsync(copy.fileno())
    if how == "copied":
        with suppress(Fault):  # a program's own manifest says nothing that could be checked
            for entry in Manifest.read(source).files:
                if fault := _fault(target, entry):
                    raise OSError(5, f"copied with an error: {fault}", str(target))
    sync_folder(target)
    return how


def _size(folder: Path) -> int:
    return sum(s.st_size for s in _stats(folder))


def _stats(folder: Path) -> Iterator[os.stat_result]:
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            if path.is_file():
                yield path.stat()
