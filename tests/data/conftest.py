"""A store of real text, small, built once a session."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from xgen.data import TokenStore
from xgen.data.build import Build, build_tiny_store

settings.register_profile("busy-machine", deadline=None)  # two cores, shared with other tests
settings.load_profile("busy-machine")

VOCAB_SIZE, MAX_BYTES = 512, 200_000


def build_small(out: Path, vocab_size: int = VOCAB_SIZE) -> Build:
    return build_tiny_store(out, vocab_size=vocab_size, max_bytes=MAX_BYTES)


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    return build_small(tmp_path_factory.mktemp("data") / "store")


@pytest.fixture(scope="session")
def store(build: Build) -> TokenStore:
    return build.store


@pytest.fixture
def store_copy(store: TokenStore, tmp_path: Path) -> Path:
    """A store to break."""
    import shutil

    return Path(shutil.copytree(store.path, tmp_path / "store"))
