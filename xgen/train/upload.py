"""A second place for checkpoints: a process of its own copies one, the manifest last, and reads the sizes back.

`python -m xgen.train.upload` takes its orders from its input, not from its command line, which everybody on the
machine can read: the URL may hold credentials. No torch.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from xgen.runs import STOP_SIGNALS
from xgen.train.manifest import MANIFEST, Manifest

_NICE = 15
_TRIES = 3
_PAUSE = 5.0  # seconds before the second try, and more before the third


class Copier:
    """The trainer's end: one copy at a time, the newest checkpoint next. Never waits unless told to."""

    def __init__(self, url: str, run: str, timeout: float = 4 * 3600.0) -> None:
        self._url, self._run, self._timeout = url, run, timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._began = 0.0
        self._copying: Path | None = None
        self._next: Path | None = None

    @property
    def busy(self) -> bool:
        return self._copying is not None

    def copy(self, folder: Path) -> None:
        """Copy this checkpoint; where another is being copied, after it. Raises OSError when no process can be had."""
        if self._copying:
            self._next = folder
            return
        order = {"url": self._url, "run": self._run, "folder": str(folder)}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # inherited: the copy outlives a stop signal
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "xgen.train.upload"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._copying, self._began = folder, time.monotonic()
        assert self._process.stdin
        self._process.stdin.write(json.dumps(order).encode())
        self._process.stdin.close()

    def ended(self) -> tuple[int, str, float] | None:
        """Step, what went wrong or '', and seconds of a copy that has ended; None when none has."""
        if not self._copying or not self._process or not self._process.stdout:
            return None
        seconds = time.monotonic() - self._began
        if self._process.poll() is None:
            if seconds < self._timeout:
                return None
            self._process.kill()
            self._process.wait()
            said = f"not done after {seconds:.0f} s"
        else:
            said = self._process.stdout.read().decode(errors="replace").strip()
            said = said or f"the process exited with {self._process.returncode}"
        self._process.stdout.close()
        step = int(self._copying.name.partition("-")[2])
        self._copying, following, self._next = None, self._next, None
        if following:
            self.copy(following)
        where = redacted(self._url)
        return step, "" if said == "copied" else f"copy to {where} failed: {said}", seconds

    def stop(self) -> None:
        """Give up the copy under way, as if its time were over, and the next."""
        self._timeout, self._next = 0.0, None


def redacted(url: str) -> str:
    """The URL without user, password and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}" if parts.scheme else url


def upload(folder: Path, url: str, run: str) -> None:
    """Copy a checkpoint to `<url>/<run>/<its name>/`. Raises OSError, or what the URL's file system raises."""
    import fsspec

    names = [*(entry.name for entry in Manifest.read(folder).files), MANIFEST]
    system, root = fsspec.core.url_to_fs(url)
    target = f"{root.rstrip('/')}/{run}/{folder.name}"
    system.makedirs(target, exist_ok=True)
    if system.exists(f"{target}/{MANIFEST}"):  # of an earlier copy: what follows it is not whole until the new one is
        system.rm_file(f"{target}/{MANIFEST}")
    for name in names:
        system.put_file(str(folder / name), f"{target}/{name}")
        system.invalidate_cache(target)
        there, here = system.size(f"{target}/{name}"), (folder / name).stat().st_size
        if there != here:
            raise OSError(f"{name} has {there} of {here} bytes there")


def _said(error: BaseException, url: str) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    parts = urlsplit(url)
    for secret in (url, parts.netloc.rpartition("@")[0], parts.password, parts.query):
        if secret:
            text = text.replace(secret, "…")
    return text


def main() -> None:
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    os.nice(_NICE)
    order = json.load(sys.stdin)
    for attempt in range(1, _TRIES + 1):
        try:
            upload(Path(order["folder"]), order["url"], order["run"])
        except Exception as error:  # noqa: BLE001 - every file system has its own, and the trainer only tells
            said = _said(error, order["url"])
            if attempt < _TRIES:
                time.sleep(_PAUSE * attempt)
        else:
            said = "copied"
            break
    print(said, flush=True)


if __name__ == "__main__":
    main()
