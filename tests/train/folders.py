"""Checkpoint folders as the trainer leaves them, by the trainer's own manifest code, with a few bytes in each."""

from __future__ import annotations

from pathlib import Path

from xgen.runs import RunDir
from xgen.train.manifest import Manifest, Mesh, describe


def save(run: RunDir, step: int, *, loss: float | None = None, tokens: int | None = None, data: str = "order") -> Path:
    """A complete checkpoint of two ranks, 3,000 bytes and the manifest."""
    folder = run.checkpoints_dir / f".step-{step}.1.tmp"
    folder.mkdir(parents=True)
    for name in ("__0_0.distcp", "__1_0.distcp", ".metadata"):
        (folder / name).write_bytes(f"{step} {name} ".encode() * 1000 + b"\n")
        with (folder / name).open("r+b") as file:
            file.truncate(1000)
    Manifest(
        step=step,
        tokens=step * 1024 if tokens is None else tokens,
        next_sample=step * 4,
        loss=loss,
        world_size=2,
        mesh=Mesh(fsdp=2),
        data=data,
        torch="2.15",
        torchtitan="0.3.0",
        attempt=1,
        saved_at=1.7e9 + step,
        files=tuple(describe(path) for path in sorted(folder.iterdir())),
    ).write(folder)
    return folder.rename(run.checkpoints_dir / f"step-{step}")


def damage(folder: Path, name: str = "__1_0.distcp") -> None:
    """Flip a byte."""
    content = bytearray((folder / name).read_bytes())
    content[500] ^= 1
    (folder / name).unlink()  # not in place: a fork may share it
    (folder / name).write_bytes(content)
