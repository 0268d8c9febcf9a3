"""What there is to read: links too, and nothing is passed over in silence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xgen.data import StoreError
from xgen.data.places import File
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


def test_a_small_file_that_changes_changes_its_own_unit(tmp_path: Path) -> None:
    def size(name: int, num_bytes: int) -> None:
        with (tmp_path / f"{name:02}.jsonl").open("wb") as file:
            file.truncate(num_bytes)

    def units() -> set[tuple[File, ...]]:
        plan = plan_units([str(tmp_path)])
        files = [file for unit in plan.units for file in plan.files_of(unit)]
        assert files == list(plan.files) and len(files) >= 40
        return {tuple(File(file.path, file.size, "") for file in plan.files_of(unit)) for unit in plan.units}

    for name in range(40):
        size(2 * name + 1, 1_400_000)
    before = units()
    assert 7 <= len(before) <= 20  # 14 of 4 MB would be even
    size(1, 4_000_000)
    grown = units()
    assert len(before - grown) <= 2
    size(40, 1_400_000)
    assert len(grown - units()) <= 2


def test_units_of_many_small_files_have_some_size(tmp_path: Path) -> None:
    for name in range(3000):
        with (tmp_path / f"{name}.jsonl").open("wb") as file:
            file.truncate(100_000)
    plan = plan_units([str(tmp_path)])
    sizes = [sum(file.size for file in plan.files_of(unit)) for unit in plan.units]
    assert 50 <= len(sizes) <= 110 and max(sizes) < 9 << 20  # 72 of 4 MB would be even
