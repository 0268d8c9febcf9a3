"""Where a jailed program writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from xgen.posttrain.rewards import jail


@pytest.mark.parametrize(("python", "folder"), [("/opt/venv", "/tmp"), ("/tmp/checkout/.venv", "/var/tmp")])
def test_what_is_written_does_not_hide_the_python_that_runs(
    python: str, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jail, "_visible", lambda: [Path("/usr"), Path(python)])
    jail._scratch.cache_clear()
    try:
        assert jail._scratch() == folder
    finally:
        jail._scratch.cache_clear()
