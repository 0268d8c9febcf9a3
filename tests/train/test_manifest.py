"""The manifest finds any damage to any file."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xgen.train.manifest import Fault, describe, verify


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
