"""The code snapshot: what is submitted is what runs, whatever happens to the checkout while the job waits."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from xgen.cluster.copied import read_copied
from xgen.runs import RunDir
from xgen.spec import Command, Job, Problem, SpecError
from xgen.spec.units import format_bytes

MAX_BYTES = 256 * 2**20
_MADE = 946684800  # time stamp of every file in a snapshot, 2000-01-01: any other tells of a change
MAX_UNTRACKED_BYTES = 16 * 2**20  # of one file; a data set that was forgotten in the checkout is larger
_GIT_TIMEOUT = 60  # seconds; a checkout on a slow shared file system takes a while to stat


@dataclass(frozen=True)
class Code:
    """The files of a checkout that go into a snapshot: tracked, or untracked and not ignored by git."""

    root: Path
    commit: str  # '' when nothing is committed yet, or outside a checkout
    files: tuple[str, ...]
    changed: tuple[str, ...]  # differ from the commit, or are untracked
    untracked: tuple[str, ...]  # of those: they go along, and a person should know
    num_bytes: int
    copied_diff: bytes | None = None  # against the commit, where another machine has the checkout

    @cached_property
    def held(self) -> _Held:
        """What it holds, read once: all steps of a pipeline get the same."""
        return _hold(self)

    def __str__(self) -> str:
        if not self.files:
            return f"{self.root} is no git checkout: of its files none is pinned, xgen is as installed"
        commit = self.commit[:7] or "no commit"
        changes = f" + {len(self.changed)} changed files" if self.changed else ""
        names = ", ".join(self.untracked[:5]) + (", …" if len(self.untracked) > 5 else "")
        untracked = f" (untracked: {names})" if names else ""
        return f"{commit}{changes}{untracked}, {len(self.files)} files, {format_bytes(self.num_bytes)}"


def inspect_code(root: Path) -> Code:
    """What a snapshot of `root` would hold. Raises SpecError when it is too large to copy for every run, or when git
    does not read a checkout that there is."""
    if (copied := read_copied(root)) is not None:
        diff = copied.diff.encode("latin-1")
        return Code(root, copied.commit, copied.files, copied.changed, copied.untracked, copied.num_bytes, diff)
    status = _start_git(root, "status", "--porcelain=v2", "--branch", "-z", "--no-renames", "--untracked-files=all")
    sizes = dict(sorted(_list_files(str(root), "")))
    said = _finish(status, root)
    if said is None:
        return Code(root, "", (), (), (), 0)
    commit, changed, untracked = _read_status(os.fsdecode(said))
    _check_sizes(root, sizes, untracked)
    return Code(root, commit, tuple(sizes), changed, untracked, sum(sizes.values()))


# From here on paths of files are text: pathlib would take half of a submission's time for its thousands of calls.


def _list_files(folder: str, prefix: str) -> Iterator[tuple[str, int]]:
    """Names and sizes of what git tracks, and of what it neither knows nor ignores; of submodules and nested checkouts
    too."""
    listed = _finish(_start_git(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard"), Path(folder))
    for name in set(os.fsdecode(listed or b"").split("\0")) - {""}:
        path = f"{folder}/{name}"
        try:
            found = os.lstat(path)
        except OSError:
            continue  # deleted, and git not told
        if stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode):
            yield prefix + name, found.st_size
        elif Path(path, ".git").exists():
            yield from _list_files(path, f"{prefix}{name.rstrip('/')}/")


def _read_status(text: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Commit, changed files with the untracked among them, untracked files, of `git status --porcelain=v2 -z`."""
    commit, changed, untracked = "", [], []
    for entry in text.split("\0"):
        match entry[:2]:
            case "# ":
                if entry.startswith("# branch.oid ") and "(initial)" not in entry:
                    commit = entry.removeprefix("# branch.oid ")
            case "1 " | "u ":
                changed.append(entry.split(" ", 8 if entry[0] == "1" else 10)[-1])
            case "? ":
                untracked.append(entry[2:])
    return commit, (*changed, *untracked), tuple(untracked)


def _check_sizes(root: Path, sizes: Mapping[str, int], untracked: Iterable[str]) -> None:
    problems = [
        Problem(
            str(root / name),
            "",
            f"is untracked, has {format_bytes(sizes[name])}, and would be copied for every run; "
            "add it to .gitignore and mount it, or commit it",
        )
        for name in untracked
        if sizes.get(name, 0) > MAX_UNTRACKED_BYTES
    ]
    total = sum(sizes.values())
    if total > MAX_BYTES and not problems:
        largest = max(sizes, key=lambda name: sizes[name])
        problems = [
            Problem(
                str(root),
                "",
                f"the code snapshot would hold {format_bytes(total)}, the most is {format_bytes(MAX_BYTES)}; "
                f"add large files to .gitignore, the largest is {largest} ({format_bytes(sizes[largest])})",
            )
        ]
    if problems:
        raise SpecError(*problems)


def check_command(job: Job, code: Code) -> None:
    """Raises SpecError for a word of a command that names a file of the checkout which the snapshot does not hold."""
    if not isinstance(job, Command) or not code.files:
        return
    held = set(code.files)
    problems = [
        Problem(
            "",
            f"command[{number}]",
            f"{word} is ignored by git, so the snapshot that runs does not hold it; "
            f"write `git add --force {word}`, or mount its folder and write the whole path",
        )
        for number, word in enumerate(job.command)
        if not word.startswith(("/", "-")) and (code.root / word).is_file() and os.path.normpath(word) not in held
    ]
    if problems:
        raise SpecError(*problems)


def take_snapshot(code: Code, run: RunDir, run_root: Path) -> None:
    """Fill `code/`, and write the commit to `code.commit`, the changes against it to `code.diff`.

    The files are kept once for all runs of the same code, in `<run_root>/.code/<checksum>/`, and linked. They are
    read-only, and the checksum is of what was read: a file that is edited meanwhile is in or out as a whole.
    """
    run.code_dir.mkdir()
    held = code.held
    contents = held.contents
    shared = run_root / ".code" / held.checksum
    try:
        _link(contents, shared, run.code_dir)
    except OSError:  # a new checksum, a file system without hard links, or somebody tidied up
        _write(contents, run.code_dir)
        _share(contents, run.code_dir, shared)
    if code.files:
        (run.path / "code.commit").write_text(code.commit + "\n")
        (run.path / "code.diff").write_bytes(held.diff)


@dataclass(frozen=True)
class _Content:
    """A file, or where a link leads."""

    data: bytes
    executable: bool = False
    is_link: bool = False


@dataclass(frozen=True)
class _Held:
    """What a snapshot of the code holds, as it was read."""

    contents: Mapping[str, _Content]
    checksum: str
    diff: bytes


def _hold(code: Code) -> _Held:
    diff = _start_diff(code)
    contents = dict(_read(code))
    return _Held(contents, _checksum(contents), _finish_diff(diff, code))


def diff_of(code: Code) -> bytes:
    """The changes against the commit."""
    return _finish_diff(_start_diff(code), code)


def _start_diff(code: Code) -> subprocess.Popen[bytes] | None:
    if not code.commit or not code.changed or code.copied_diff is not None:
        return None
    return _start_git(code.root, "diff", "--binary", "--no-ext-diff", "--no-textconv", "--no-color", "HEAD")


def _finish_diff(git: subprocess.Popen[bytes] | None, code: Code) -> bytes:
    return (_finish(git, code.root) or b"") if git else code.copied_diff or b""


def _sources(code: Code) -> Iterator[tuple[str, str]]:
    """Names in the snapshot, and the files they are of. xgen is always among them: it runs in the container."""
    for name in code.files:
        yield name, f"{code.root}/{name}"
    if "xgen/__init__.py" not in code.files:
        package = Path(__file__).resolve().parents[1]
        for path in sorted(package.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield f"xgen/{path.relative_to(package)}", str(path)


def _read(code: Code) -> Iterator[tuple[str, _Content]]:
    for name, path in _sources(code):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue  # deleted since git listed it, as if a moment earlier
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            yield name, _Content(os.fsencode(os.readlink(path)), is_link=True)
            continue
        with open(fd, "rb", buffering=0) as file:
            yield name, _Content(file.read(), executable=bool(os.fstat(fd).st_mode & stat.S_IXUSR))


def _checksum(contents: Mapping[str, _Content]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, content in contents.items():
        head = f"{len(name)} {len(content.data)} {content.executable:d}{content.is_link:d} "
        digest.update(os.fsencode(head + name) + content.data)
    return digest.hexdigest()


def _make_folders(names: Iterable[str], root: Path) -> None:
    folders: set[str] = set()
    for name in names:
        folder = os.path.dirname(name)
        while folder and folder not in folders:
            folders.add(folder)
            folder = os.path.dirname(folder)
    for folder in sorted(folders):
        os.mkdir(f"{root}/{folder}")


def _link(contents: Mapping[str, _Content], source: Path, target: Path) -> None:
    """Raises OSError where `source` is not what it was made as: somebody wrote into it, or a host died before its disk
    had it all."""
    if not source.is_dir():
        raise FileNotFoundError(source)
    _make_folders(contents, target)
    for name, content in contents.items():
        path = f"{source}/{name}"
        found = os.lstat(path)
        if not content.is_link and (found.st_size, found.st_mtime) != (len(content.data), _MADE):
            raise OSError(f"{path} was changed")
        os.link(path, f"{target}/{name}", follow_symlinks=False)


def _write(contents: Mapping[str, _Content], target: Path) -> None:
    shutil.rmtree(target)
    target.mkdir()
    _make_folders(contents, target)
    for name, content in contents.items():
        path = f"{target}/{name}"
        if content.is_link:
            os.symlink(content.data, os.fsencode(path))
            continue
        mode = 0o555 if content.executable else 0o444
        with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode), "wb") as file:
            file.write(content.data)
        os.utime(path, (_MADE, _MADE))


def _share(contents: Mapping[str, _Content], source: Path, shared: Path) -> None:
    """Offer a snapshot to the runs that come. Best effort: the run has its own already."""
    building, aside = (shared.with_name(f".{shared.name}.{os.getpid()}.{end}") for end in ("tmp", "old"))
    try:
        building.mkdir(parents=True)
        _link(contents, source, building)
        if shared.exists():  # it is damaged; whoever links from it at this moment makes a copy instead
            shared.rename(aside)
        building.rename(shared)
    except OSError:
        shutil.rmtree(building, ignore_errors=True)
    shutil.rmtree(aside, ignore_errors=True)


def _start_git(root: Path | str, *arguments: str) -> subprocess.Popen[bytes] | None:
    """git at work; None where there is none. It takes no lock: a person's commit meanwhile would be refused."""
    try:
        return subprocess.Popen(
            ["git", "--no-optional-locks", "-C", str(root), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except OSError:
        return None


def _finish(git: subprocess.Popen[bytes] | None, root: Path) -> bytes | None:
    """Output of git, None where there is no git, or no checkout. Raises SpecError where git fails on a checkout."""
    if git is None:
        return None
    try:
        output, said = git.communicate(timeout=_GIT_TIMEOUT)
    except subprocess.TimeoutExpired:
        git.kill()
        git.communicate()
        raise SpecError(Problem(str(root), "", f"git did not answer within {_GIT_TIMEOUT} s")) from None
    if git.returncode == 0:
        return output
    if any((folder / ".git").exists() for folder in (root, *root.parents)):
        lines = said.decode(errors="replace").splitlines() or [f"git exited with {git.returncode}"]
        fix = "; submit from a clone of your own" if "dubious ownership" in lines[0] else ""
        raise SpecError(Problem(str(root), "", f"is a checkout that git does not read: {lines[0]}{fix}"))
    return None
