"""What `xgen doctor` can say, and the page that explains it."""

from __future__ import annotations

import re
from typing import get_args

from tests.conftest import ROOT
from xgen.cluster.doctor.finding import What

PAGE = ROOT / "docs/doctor.md"


def test_the_page_has_a_row_for_each_finding_that_the_code_knows() -> None:
    found = PAGE.read_text(encoding="utf-8").partition("## What it finds")[2]
    rows = re.findall(r"^\| `([^`]+)` \|", found, re.MULTILINE)
    assert sorted(rows) == sorted(get_args(What))


def test_each_finding_that_the_code_knows_is_made_somewhere() -> None:
    files = [*(ROOT / "xgen/cluster/doctor").glob("*.py"), *(ROOT / "xgen/cli").glob("doctor*.py")]
    code = "".join(file.read_text(encoding="utf-8") for file in files)
    assert [what for what in get_args(What) if code.count(f'"{what}"') < 2] == []  # the type itself is one
