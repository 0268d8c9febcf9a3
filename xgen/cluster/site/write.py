"""Writes a profile, once it has been read back."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

from xgen.runs import write_atomic
from xgen.runs.rundir import write_once
from xgen.spec import Problem, Profile, SpecError, load_profile

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)  # e.g. CIFS, some FUSE


def read_back(text: str, said: str) -> Profile:
    """The profile that a text is, in which no path is relative. Raises SpecError, which calls the file `said`."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "profile.yaml"
        file.write_text(text, encoding="utf-8")
        try:
            return load_profile(file)
        except SpecError as error:
            raise SpecError(*(Problem(said, one.key, one.message) for one in error.problems)) from None


def write_profile(file: Path, text: str, *, force: bool) -> bool:
    """Whole or not at all. False where a file is there already, which `force` replaces: a link's target."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if force:
        write_atomic(file.resolve(), text)
        return True
    try:
        return write_once(file, text)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    try:
        with file.open("x", encoding="utf-8") as new:
            new.write(text)
    except FileExistsError:
        return False
    return True
