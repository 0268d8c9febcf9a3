"""What there is to read: links too, and nothing is passed over in silence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xgen.data import StoreError
from xgen.data.units import plan_units


def test_links_are_followed_and_one_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    folder, linked = tmp_path / "in", tmp_path / "linked"
    folder.mkdir()
    linked.mkdir()
    (folder / "0.jsonl").touch()
    (linked / "all").symlink_to(folder)
    assert [file.path for file in plan_units([str(linked)]).files] == [str(linked / "all" / "0.jsonl")]
    (folder / "1.jsonl").symlink_to(tmp_path / "gone")
    with pytest.raises(StoreError, match=r"all/1\.jsonl: is a link to .*gone, which does not exist; mend or remove"):
        plan_units([str(linked)])
    (folder / "1.jsonl").unlink()
    (folder / "up").symlink_to(linked)
    with pytest.raises(StoreError, match="up: is a link to a folder that it lies in; remove the link"):
        plan_units([str(linked)])


def test_a_name_that_is_not_utf_8_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"a\xff.jsonl")).write_text("{}")
    with pytest.raises(StoreError, match=r"a\\udcff\.jsonl: has a name that is not UTF-8, .*; rename it"):
        plan_units([str(tmp_path)])
