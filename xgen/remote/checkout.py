"""What of this machine a command needs over there: the checkout around the spec that it names, as a copy."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from xgen.cluster.copied import Copied
from xgen.cluster.snapshot import diff_of, inspect_code
from xgen.remote.faults import RemoteError, rsync_fault
from xgen.remote.ssh import Client
from xgen.spec import Problem, SpecError, project_root

_RSYNC_TIME = 1800.0  # seconds: 256 MB over a slow line
_YAML = (".yaml", ".yml")


@dataclass(frozen=True)
class Checkout:
    """The project around a command, and the words of the command that name something in it."""

    root: Path
    here: Path  # where the command was given
    named: tuple[str, ...]  # files and folders of this machine

    @property
    def name(self) -> str:
        """Of its copy: one for each checkout of each person on each machine."""
        whole = f"{os.getuid()}@{os.uname().nodename}:{self.root}"
        name = re.sub(r"[^\w.-]", "_", self.root.name or "root", flags=re.ASCII)
        return f"{name}-{hashlib.sha256(whole.encode()).hexdigest()[:10]}"

    @property
    def specs(self) -> list[Path]:
        return [self._path(word) for word in self.named if word.endswith(_YAML)]

    def has(self, word: str) -> bool:
        return self._path(word).is_relative_to(self.root)

    def _path(self, word: str) -> Path:
        path = Path(os.path.normpath(self.here / word))
        return path if path.is_relative_to(self.root) else path.resolve()  # by way of a link

    def over_there(self, word: str, tree: str) -> str:
        """What names the same in the copy. Raises SpecError for what is beside the checkout."""
        if self.has(word):
            inside = not Path(word).is_absolute() and self.here.is_relative_to(self.root)
            return word if inside else f"{tree}/{self._path(word).relative_to(self.root)}"
        raise SpecError(Problem("", word, f"is outside of {self.root}, which is what the cluster gets a copy of"))

    def folder(self, tree: str) -> str:
        """Where the command runs."""
        return f"{tree}/{self.here.relative_to(self.root)}" if self.here.is_relative_to(self.root) else tree


def find_checkout(words: Sequence[str], here: Path) -> Checkout:
    """The project of the spec that is named, else the one around `here`."""
    own = list(words[: words.index("--")] if "--" in words else words)
    found = [(before, word) for before, word in pairwise(own) if _is_path(word) and (here / word).exists()]
    spec = next((word for before, word in found if word.endswith(_YAML) and before != "--cluster"), None)
    root = project_root((here / spec).resolve().parent if spec else here)
    checkout = Checkout(root, here, ())
    return replace(checkout, named=tuple(word for _, word in found if checkout.has(word) or not word.startswith("/")))


def _is_path(word: str) -> bool:
    return not word.startswith("-") and ("/" in word or word.endswith(_YAML))


def inspect(checkout: Checkout) -> Copied:
    """What its copy holds: what a snapshot would, and the specs that are named, with those that they name. Raises
    SpecError."""
    code = inspect_code(checkout.root)
    held = set(code.files)
    specs = {file for spec in checkout.specs for file in mentioned(spec, checkout.root)}
    others = {str(file.relative_to(checkout.root)) for file in specs} - held
    for name in sorted(held | others):
        try:
            name.encode()
        except UnicodeEncodeError:
            raise SpecError(Problem("", repr(name), "is no name in UTF-8; rename it, or let git ignore it")) from None
    return Copied(
        commit=code.commit,
        files=code.files,
        changed=code.changed,
        untracked=code.untracked,
        num_bytes=code.num_bytes,
        diff=diff_of(code).decode("latin-1"),
        others=tuple(sorted(others)),
    )


def mentioned(spec: Path, root: Path) -> set[Path]:
    """A spec and all specs below the root that it names: what it extends, steps of a pipeline, mixtures."""
    found: set[Path] = set()
    waiting = [Path(os.path.normpath(spec))]
    while waiting:
        file = waiting.pop()
        if file in found or not file.is_file() or not file.is_relative_to(root):
            continue
        found.add(file)
        waiting += [Path(os.path.normpath(base / text)) for text in _texts(_raw(file)) for base in (file.parent, root)]
    return found


def _raw(file: Path) -> Any:
    """As it stands, without what it extends; the cluster says what is wrong with it."""
    import yaml

    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str) and value.endswith(_YAML):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def sync(client: Client, checkout: Checkout, copied: Copied, tree: str) -> None:
    """Bring the files over. Raises RemoteError."""
    host = client.ssh.host
    place = f"[{host}]" if ":" in host else host
    command = [
        "rsync", "--links", "--perms", "--times", "--checksum", "--omit-dir-times", "--timeout=300",
        "--from0", "--files-from=-", f"--rsh={shlex.join(client.words)}", f"{checkout.root}/", f"{place}:{tree}/",
    ]  # fmt: skip
    names = b"".join(b"./" + os.fsencode(name) + b"\0" for name in (*copied.files, *copied.others))
    try:
        done = subprocess.run(
            command, input=names, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=_RSYNC_TIME, check=False
        )
    except FileNotFoundError:
        raise RemoteError("rsync is not on PATH; install it") from None
    except subprocess.TimeoutExpired:
        raise RemoteError(f"{client.ssh.said}: rsync has not ended within {_RSYNC_TIME:.0f} s", passes=True) from None
    if done.returncode and done.returncode != 24:  # 24: a file has gone meanwhile
        raise rsync_fault(client.ssh, tree, done.returncode, done.stderr.decode(errors="replace"))


@contextmanager
def alone(checkout: Checkout, host: str) -> Iterator[None]:
    """One command at a time has the copy: what was copied for it is what it reads."""
    key = hashlib.sha256(f"{checkout.name}@{host}".encode()).hexdigest()[:16]
    file = Path(tempfile.gettempdir()) / f"xgen-copy-{os.getuid()}-{key}.lock"
    with os.fdopen(os.open(file, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another xgen that uses the copy of {checkout.root}", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
