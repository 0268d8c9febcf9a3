"""The code snapshot: what is submitted is what runs, whatever happens to the checkout while the job waits."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from xgen.runs import RunDir, write_atomic
from xgen.spec import Problem, SpecError
from xgen.spec.units import format_bytes

MAX_BYTES = 256 * 2**20
_GIT_TIMEOUT = 60  # seconds; a checkout on a slow shared file system takes a while to stat


@dataclass(frozen=True)
class Code:
    """The files of a checkout that go into a snapshot: tracked, or untracked and not ignored by git."""

    root: Path
    commit: str  # '' when nothing is committed yet, or outside a checkout
    files: tuple[str, ...]
    changed: tuple[str, ...]  # differ from the commit, or are untracked
    num_bytes: int

    def __str__(self) -> str:
        if not self.files:
            return f"{self.root} is no git checkout: the installed xgen runs, nothing is pinned"
        commit = self.commit[:7] or "no commit"
        changes = f" + {len(self.changed)} changed files" if self.changed else ""
        return f"{commit}{changes}, {len(self.files)} files, {format_bytes(self.num_bytes)}"


def inspect_code(root: Path) -> Code:
    """What a snapshot of `root` would hold. Raises SpecError when it is too large to copy for every run."""
    listed = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if listed is None:
        return Code(root, "", (), (), 0)
    names = [name for name in listed.split("\0") if name and (root / name).is_file()]
    sizes = {name: (root / name).lstat().st_size for name in names}
    total = sum(sizes.values())
    if total > MAX_BYTES:
        largest = max(sizes, key=lambda name: sizes[name])
        raise SpecError(
            Problem(
                str(root),
                "",
                f"the code snapshot would hold {format_bytes(total)}, the most is {format_bytes(MAX_BYTES)}; "
                f"add large files to .gitignore, the largest is {largest} ({format_bytes(sizes[largest])})",
            )
        )
    commit = (_git(root, "rev-parse", "--verify", "--quiet", "HEAD") or "").strip()
    status = _git(root, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all") or ""
    changed = tuple(entry[3:] for entry in status.split("\0") if len(entry) > 3)
    return Code(root, commit, tuple(names), changed, total)


def take_snapshot(code: Code, run: RunDir) -> None:
    """Copy the files to `code/`, the commit to `code.commit`, the changes against it to `code.diff`."""
    run.code_dir.mkdir()
    folders: set[Path] = set()
    for name in code.files:
        target = run.code_dir / name
        if target.parent not in folders:
            target.parent.mkdir(parents=True, exist_ok=True)
            folders.add(target.parent)
        shutil.copy2(code.root / name, target, follow_symlinks=False)
    if code.files:
        write_atomic(run.path / "code.commit", code.commit + "\n")
        diff = _git(code.root, "diff", "--binary", "HEAD") if code.commit and code.changed else ""
        write_atomic(run.path / "code.diff", diff or "")


def _git(root: Path, *arguments: str) -> str | None:
    """Output of git, None where there is no git or no checkout."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=_GIT_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
