"""The manifest finds any damage to any file."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xgen.train.manifest import MANIFEST, Fault, FileEntry, Manifest, describe, verify


@settings(max_examples=100, deadline=None)
@given(content=st.binary(min_size=1, max_size=4000), data=st.data())
def test_any_changed_byte_and_any_other_length_is_found(content: bytes, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shard"
        path.write_bytes(content)
        entry = describe(path)
        verify(Path(folder), entry)
        position = data.draw(st.integers(0, len(content) - 1))
        flipped = bytearray(content)
        flipped[position] ^= data.draw(st.integers(1, 255))
        for damaged in (bytes(flipped), content[:position], content + b"x"):
            path.write_bytes(damaged)
            with pytest.raises(Fault, match="shard: "):
                verify(Path(folder), entry)


def test_checkpoint_of_the_first_release_still_verifies(tmp_path: Path) -> None:
    """Its manifest, as version 0.1.0 wrote it: blake2b, and a store instead of a fingerprint of the data order."""
    content = b"weights" * 1000
    (tmp_path / "__0_0.distcp").write_bytes(content)
    checksum = hashlib.blake2b(content, digest_size=16).hexdigest()
    old = {
        "version": 1, "step": 4, "tokens": 1024, "next_sample": 16, "world_size": 1, "store": "abc",
        "torch": "2.15.0", "torchtitan": "0.3.0",
        "files": [{"name": "__0_0.distcp", "size": len(content), "blake2b": checksum}],
    }  # fmt: skip
    (tmp_path / MANIFEST).write_text(json.dumps(old))
    manifest = Manifest.read(tmp_path)
    assert (manifest.data, manifest.data_digest, manifest.loss, manifest.mesh) == ("abc", "", None, None)
    verify(tmp_path, manifest.files[0])
    (tmp_path / "__0_0.distcp").write_bytes(content.replace(b"w", b"v", 1))
    with pytest.raises(Fault, match="its checksum is not the manifest's"):
        verify(tmp_path, manifest.files[0])


def test_checksum_of_a_kind_that_this_version_does_not_know_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "shard").write_bytes(b"x")
    with pytest.raises(Fault, match="unknown kind 'sha9'"):
        verify(tmp_path, FileEntry(name="shard", size=1, checksum="sha9:00"))
