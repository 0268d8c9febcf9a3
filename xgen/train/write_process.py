"""The writer process of a rank: puts what lies in the rank's arena on disk while the training goes on.

Run by path, with a bare interpreter: standard library and xxhash only, so that it is there in some hundredths of a
second and takes no memory of note. Orders come in and answers go out as one JSON object a line (`writer.py` is the
other end). It ignores the signals of a stop, which srun sends to every process, finishes the order it has when the
trainer dies, and ends when no order can come any more.
"""

import sys

sys.path.append(sys.argv[2])  # where xxhash is: the interpreter runs without its site-packages

import json
import mmap
import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import xxhash

_BLOCK = 8 << 20  # bytes between two looks at the disk
_SYNC = 64 << 20  # bytes that may be dirty: more at once would stall every other writer to this disk
_NICE = 5  # a third of a busy core, where 10 would be a tenth: with every core busy a save took four times as long
_POLL = 0.02  # seconds
_SILENCE = 600.0  # seconds without a byte from any rank, after which a checkpoint is given up


class _Arena:
    """The trainer's memory, mapped anew only when it has grown."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._map: mmap.mmap | None = None

    def bytes(self, end: int) -> memoryview:
        if self._map is None or len(self._map) < end:
            self._map = mmap.mmap(self._fd, os.fstat(self._fd).st_size, prot=mmap.PROT_READ)
        return memoryview(self._map)


def main() -> None:
    for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.nice(_NICE)
    arena = _Arena(int(sys.argv[1]))
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "delete":
            for folder in order["folders"]:
                shutil.rmtree(folder, ignore_errors=True)
        else:
            answer = {"step": order["step"], "error": _save(order, arena)}
            with suppress(BrokenPipeError):  # nobody is left to hear it
                os.write(sys.stdout.fileno(), json.dumps(answer).encode() + b"\n")


def _save(order: dict[str, Any], arena: _Arena) -> str:
    """Write this rank's files; rank 0 makes a checkpoint of all ranks' files. Returns what went wrong, or ''."""
    building, rank = Path(order["building"]), order["rank"]
    error = ""
    entries: list[dict[str, Any]] = []
    try:
        building.mkdir(parents=True, exist_ok=True)
        for file in order["files"]:
            end = file["offset"] + file["size"]
            entries.append(_write(building / file["name"], arena.bytes(end)[file["offset"] : end]))
    except OSError as failure:
        error = _said(rank, failure)
        for file in order["files"]:  # a full disk must have room for the word that it is full
            with suppress(OSError):
                (building / file["name"]).unlink(missing_ok=True)
    if "publish" not in order:
        return _tell_rank_0(building, rank, {"token": order["token"], "error": error, "entries": entries})
    try:
        if not error:
            error, others = _others(building, order)
            entries += others
        if not error:
            _publish(building, order["publish"], entries)
    except OSError as failure:
        error = _said(rank, failure)
    if error:
        shutil.rmtree(building, ignore_errors=True)
    return error


def _write(path: Path, content: memoryview) -> dict[str, Any]:
    digest = xxhash.xxh3_128()
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o664)
    try:
        dirty = 0
        for begin in range(0, len(content), _BLOCK):
            block = content[begin : begin + _BLOCK]
            digest.update(block)
            while block:
                block = block[os.write(fd, block) :]
            dirty += _BLOCK
            if dirty >= _SYNC:
                os.fdatasync(fd)
                dirty = 0
        os.fsync(fd)
    finally:
        os.close(fd)  # some file systems say only here that there was no room
    return {"name": path.name, "size": len(content), "checksum": f"xxh3_128:{digest.hexdigest()}"}


def _tell_rank_0(building: Path, rank: int, report: dict[str, Any]) -> str:
    """Returns the error of the report, or why it could not be told."""
    try:
        _write_atomic(building / f"entries.{rank}.json", json.dumps(report))
    except OSError as failure:
        with suppress(OSError):
            (building / f"failed.{rank}").touch()  # a name may find room where a byte does not
        return report["error"] or _said(rank, failure)
    return str(report["error"])


def _others(building: Path, order: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """What went wrong on any other rank, or '', and the entries of their files, once all have reported."""
    waiting, entries, error = set(range(1, order["world_size"])), [], ""
    seen, last_sign = -1, time.monotonic()
    while waiting:
        for rank in sorted(waiting):
            report = _report(building, rank, order["token"])
            if report is not None:
                waiting.remove(rank)
                entries += report["entries"]
                error = error or report["error"]
        if waiting:
            written = _bytes_in(building)
            if written != seen:
                seen, last_sign = written, time.monotonic()
            if time.monotonic() - last_sign > _SILENCE:
                return f"no byte from ranks {sorted(waiting)[:8]} for {_SILENCE:.0f} s", []
            time.sleep(_POLL)
    return error, entries


def _report(building: Path, rank: int, token: int) -> dict[str, Any] | None:
    try:
        report: dict[str, Any] = json.loads((building / f"entries.{rank}.json").read_text())
    except FileNotFoundError:
        if (building / f"failed.{rank}").exists():
            return {"error": f"rank {rank}: could not write, and could not write why", "entries": []}
        return None
    return report if report["token"] == token else None


def _bytes_in(folder: Path) -> int:
    size = 0
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # another rank has just given it its name
            size += path.stat().st_size
    return size


def _publish(building: Path, publish: dict[str, Any], entries: list[dict[str, Any]]) -> None:
    """The manifest, then the rename that makes the checkpoint count."""
    manifest = publish["manifest"] | {
        "saved_at": time.time(),
        "files": sorted(entries, key=lambda entry: str(entry["name"])),
    }
    for report in building.glob("entries.*.json"):
        report.unlink()
    _write_atomic(building / "manifest.json", json.dumps(manifest, indent=1) + "\n")
    _sync_folder(building)
    final = Path(publish["final"])
    if final.exists():
        # A writer that outlived its trainer may have published this step while the next attempt trained it again.
        final.rename(building.with_name(f"{building.name}.old.tmp"))
    building.rename(final)
    _sync_folder(final.parent)
    shutil.rmtree(building.with_name(f"{building.name}.old.tmp"), ignore_errors=True)


def _write_atomic(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.tmp")
    fd = os.open(part, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o664)
    with os.fdopen(fd, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(fd)
    part.rename(path)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _said(rank: int, failure: OSError) -> str:
    return f"rank {rank}: {failure}"


if __name__ == "__main__":
    main()
