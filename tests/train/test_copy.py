"""The second place of checkpoints; its troubles are told and cost no training."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.train.conftest import STEPS, Training
from xgen.runs import read_events
from xgen.train import upload
from xgen.train.manifest import Manifest, describe, verify


def reasons(training: Training) -> list[str]:
    return [event.reason or "" for event in read_events(training.run) if event.event == "checkpoint_failed"]


def test_every_checkpoint_that_is_durable_is_copied_whole(training: Training, tmp_path: Path) -> None:
    training.change("checkpoint", {"every": STEPS, "mode": "sync", "copy_to": f"file://{tmp_path}/second"})
    assert {o.status for o in training.go()} == {"finished"}
    copied = training.event("checkpoint_copied")
    assert copied
    assert copied.step == STEPS
    folder = tmp_path / "second" / training.run.name / f"step-{STEPS}"
    manifest = Manifest.read(folder)
    for entry in manifest.files:
        verify(folder, entry)
    assert {path.name for path in folder.iterdir()} == {entry.name for entry in manifest.files} | {"manifest.json"}


def test_copy_that_fails_is_told_without_its_credentials(training: Training) -> None:
    url = "nosuchfs://person:hunter2@host/runs?token=hunter3"
    training.change("checkpoint", {"every": STEPS, "mode": "sync", "copy_to": url})
    assert {o.status for o in training.go(timeout=120)} == {"finished"}
    assert len(reasons(training)) == 1
    assert reasons(training)[0].startswith("copy to nosuchfs://host/runs failed: ValueError: Protocol not known")
    everything = "".join(p.read_text(errors="replace") for p in training.run.path.rglob("*") if p.suffix != ".yaml"
                         and p.is_file() and "checkpoints" not in p.parts)  # fmt: skip
    assert "hunter" not in everything


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "step-4"
    folder.mkdir()
    (folder / "shard").write_bytes(b"x" * 1000)
    files = (describe(folder / "shard"),)
    Manifest(
        step=4, tokens=1, next_sample=0, world_size=1, data="", torch="", torchtitan="", files=files
    ).write(folder)  # fmt: skip
    return folder


def test_copy_that_arrives_short_has_no_manifest(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fsspec.implementations.local import LocalFileSystem

    upload.upload(checkpoint, f"file://{tmp_path}/there", "run")
    target = tmp_path / "there" / "run" / "step-4"
    assert (target / "manifest.json").exists()

    def short(self: LocalFileSystem, source: str, path: str, **_: object) -> None:
        Path(path).write_bytes(Path(source).read_bytes()[:-1])

    monkeypatch.setattr(LocalFileSystem, "put_file", short)
    with pytest.raises(OSError, match="shard has 999 of 1000 bytes there"):
        upload.upload(checkpoint, f"file://{tmp_path}/there", "run")
    assert not (target / "manifest.json").exists()


def test_copy_that_takes_too_long_is_given_up_and_the_newest_comes_next(checkpoint: Path, tmp_path: Path) -> None:
    copier = upload.Copier(f"file://{tmp_path}/there", "run", timeout=0.0)
    copier.copy(checkpoint)
    for step in (6, 8):
        copier.copy(checkpoint.rename(tmp_path / f"step-{step}"))
        checkpoint = tmp_path / f"step-{step}"
    first = copier.ended()
    assert first
    assert first[:2] == (4, f"copy to file://{tmp_path}/there failed: not done after 0 s")
    copier._timeout = 60.0
    while not (last := copier.ended()):
        time.sleep(0.05)
    assert last[:2] == (8, "")
    assert not copier.busy
    assert [path.name for path in (tmp_path / "there" / "run").iterdir()] == ["step-8"]


def test_memory_and_redaction(checkpoint: Path) -> None:
    upload.upload(checkpoint, "memory://there", "run")
    import fsspec

    assert fsspec.filesystem("memory").size("/there/run/step-4/shard") == 1000
    assert upload.redacted("s3://key:secret@bucket/runs?x=y") == "s3://bucket/runs"
