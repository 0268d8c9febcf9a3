"""An unpacked image made ready to be started: nothing in it belongs to the machine that it was made on."""

from __future__ import annotations

import os
import stat
from pathlib import Path

# Runtimes bind the host's files onto these; a read-only image cannot get them later.
_FILES = ("etc/hosts", "etc/resolv.conf", "etc/passwd", "etc/group")
_FOLDERS = {"dev": 0o755, "proc": 0o555, "sys": 0o555, "tmp": 0o1777, "etc": 0o755}


def tidy(root: Path) -> None:
    """Remove device nodes, add what runtimes bind onto, and let the owner read and delete all of it."""
    root.chmod(stat.S_IMODE(root.stat().st_mode) | 0o755)
    _fix(root)
    for name, mode in _FOLDERS.items():
        place = root / name
        if not place.is_dir() and not place.is_symlink():
            place.mkdir()
            place.chmod(mode)
    if (root / "etc").is_symlink():  # whatever it leads to is not ours to write
        return
    for name in _FILES:
        place = root / name
        if place.is_symlink():
            place.unlink()  # resolv.conf often leads into /run, which is empty in an image
        if not place.exists():
            place.touch()
            place.chmod(0o644)


def _fix(folder: Path) -> None:
    for entry in os.scandir(folder):
        info = entry.stat(follow_symlinks=False)
        mode = stat.S_IMODE(info.st_mode)
        if stat.S_ISBLK(info.st_mode) or stat.S_ISCHR(info.st_mode) or stat.S_ISSOCK(info.st_mode):
            Path(entry.path).unlink()
        elif stat.S_ISDIR(info.st_mode):
            if mode & stat.S_IRWXU != stat.S_IRWXU:
                Path(entry.path).chmod(mode | stat.S_IRWXU)
            _fix(Path(entry.path))
        elif stat.S_ISREG(info.st_mode) and not mode & stat.S_IRUSR:
            Path(entry.path).chmod(mode | stat.S_IRUSR)
