"""The list of tests that are left out names tests that are there."""

from __future__ import annotations

import pytest

from tests.conftest import ROOT, SLOW


@pytest.mark.parametrize("line", SLOW)
def test_a_line_names_a_test(line: str) -> None:
    file, _, name = line.partition("::")
    assert f"def {name.partition('[')[0]}(" in (ROOT / "tests" / file).read_text()
