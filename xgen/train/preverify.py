"""Verifying the newest checkpoint while torch is being imported: hashing files needs a core and a disk, no torch.

`start` begins it, `started` hands it to the loading, which takes the answer if it still is about the same checkpoint.
"""

from __future__ import annotations

import threading
from pathlib import Path

from xgen.runs import RunDir
from xgen.train.manifest import MANIFEST, Fault, Manifest, verify

_TIMEOUT = 3600.0  # seconds; hashing anew would take as long again


class PreVerify:
    """The check of one rank's share of the files of one checkpoint, in a thread of its own."""

    def __init__(self, folder: Path, rank: int, world_size: int) -> None:
        self._folder, self._rank, self._world_size = folder, rank, world_size
        self._manifest = _content(folder)
        self._fault: str | None = None
        self._thread = threading.Thread(target=self._verify, name="preverify", daemon=True)
        self._thread.start()

    def fault(self, folder: Path, rank: int, world_size: int) -> str | None:
        """What is wrong with this rank's share, '' for nothing. None when this cannot say: ask the files."""
        asked = (folder, rank, world_size, _content(folder))
        if asked != (self._folder, self._rank, self._world_size, self._manifest):
            return None
        self._thread.join(_TIMEOUT)
        return None if self._thread.is_alive() else self._fault

    def _verify(self) -> None:
        try:
            self._fault = fault_of_share(self._folder, self._rank, self._world_size)
        except Exception as error:  # noqa: BLE001 - then the loading asks the files, and meets it where it is handled
            print(f"checkpoint {self._folder.name} could not be verified ahead: {error}", flush=True)


def fault_of_share(folder: Path, rank: int, world_size: int) -> str:
    """The first fault of the files that this rank verifies, '' for none: the ranks share the files among them."""
    try:
        manifest = Manifest.read(folder)
        for entry in manifest.files[rank::world_size]:
            verify(folder, entry)
    except Fault as found:
        return str(found)
    return ""


_started: PreVerify | None = None


def start(run: RunDir, rank: int, world_size: int) -> PreVerify | None:
    """Begin with the newest checkpoint; None when the run has none. `started` returns the same."""
    global _started  # noqa: PLW0603 - one rank a process; what lies between, torchtitan builds and would not pass it on
    steps = run.checkpoint_steps()
    _started = PreVerify(run.checkpoints_dir / f"step-{steps[-1]}", rank, world_size) if steps else None
    return _started


def started() -> PreVerify | None:
    return _started


def _content(folder: Path) -> bytes:
    try:
        return (folder / MANIFEST).read_bytes()
    except OSError:
        return b""
