"""What an interrupted build leaves: the next one takes over what it would write again, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.data.test_build import content
from tests.data.test_ingest import record, write
from xgen.data import StoreError, TokenStore
from xgen.data.ingest import Built, Recipe, build_store
from xgen.data.readers import Defaults
from xgen.data.units import plan_units


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four files, a unit each; the third has a broken line."""
    monkeypatch.setattr("xgen.data.units._MIN_UNIT", 1)
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(4):
        write(folder / f"{number}.jsonl", record(number), b"{" if number == 2 else record(9))
    return folder


def build(out: Path, folder: Path, store: TokenStore, **changes: Any) -> Built:
    facts = {"tokenizer": store.path / "tokenizer.json"} | changes
    return build_store(out, Recipe((str(folder),), Defaults("web", "crawl"), **facts), workers=1)


def stopped(out: Path, folder: Path, store: TokenStore, **changes: Any) -> Path:
    with pytest.raises(StoreError, match=r"2\.jsonl: line 2: is no JSON"):
        build(out, folder, store, **changes)
    return out.with_name(f".{out.name}.building")


def test_fix_that_the_error_names_goes_on_with_what_was_done(folder: Path, tmp_path: Path, store: TokenStore) -> None:
    building = stopped(tmp_path / "out", folder, store)
    whole = len(list(building.glob("units/*[0-9]/unit.json")))
    built = build(tmp_path / "out", folder, store, on_bad_record="quarantine")
    assert 2 <= whole == built.found and built.store.meta.num_quarantined == 1
    fresh = build(tmp_path / "fresh", folder, store, on_bad_record="quarantine")
    assert content(built.store.path) == content(fresh.store.path) and not building.exists()


def test_mended_file_costs_its_own_unit(folder: Path, tmp_path: Path, store: TokenStore) -> None:
    stopped(tmp_path / "out", folder, store)
    write(folder / "2.jsonl", record(2), record(9))
    write(folder / "0.jsonl", record(7))
    built = build(tmp_path / "out", folder, store)
    assert 1 <= built.found < 3 and built.found + built.encoded == 4
    fresh = build(tmp_path / "fresh", folder, store)
    assert content(built.store.path) == content(fresh.store.path)


def test_file_that_was_removed_is_not_in_the_store(folder: Path, tmp_path: Path, store: TokenStore) -> None:
    stopped(tmp_path / "out", folder, store)
    (folder / "1.jsonl").unlink()
    (folder / "2.jsonl").unlink()
    built = build(tmp_path / "out", folder, store)
    fresh = build(tmp_path / "fresh", folder, store)
    assert built.found == 1 and content(built.store.path) == content(fresh.store.path)


def test_units_that_left_something_out_are_read_again_where_that_is_an_error(
    folder: Path, tmp_path: Path, store: TokenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("xgen.data.ingest.sync_tree", full)
    with pytest.raises(OSError, match="No space left"):
        build(tmp_path / "out", folder, store, on_bad_record="quarantine")
    monkeypatch.undo()
    monkeypatch.setattr("xgen.data.units._MIN_UNIT", 1)
    stopped(tmp_path / "out", folder, store)


def test_other_files_under_a_tokenizer_that_was_trained_on_them_are_refused(
    folder: Path, tmp_path: Path, store: TokenStore
) -> None:
    (folder / "2.jsonl").rename(folder / "9.jsonl.gz")  # is no gzip
    trained = {"tokenizer": None, "vocab_size": 260, "on_bad_record": "quarantine"}
    building = tmp_path / ".out.building"
    recipe = Recipe((str(folder),), Defaults("web", "crawl"), **trained)
    assert recipe.by_unit == {"on-bad-record"}
    assert build(tmp_path / "out", folder, store, **trained).encoded == 4
    (building / "units" / "000000").mkdir(parents=True)
    (building / "units" / "000000" / "unit.json").write_text("{}")
    (building / "recipe.json").write_text(json.dumps(recipe.facts(plan_units(recipe.inputs))))
    write(folder / "0.jsonl", record(7))
    with pytest.raises(StoreError, match="interrupted build with other files; run that one to its end, or remove"):
        build(tmp_path / "out", folder, store, **trained)


def test_recipe_of_which_no_unit_was_complete_is_forgotten(folder: Path, tmp_path: Path, store: TokenStore) -> None:
    with pytest.raises(StoreError, match=r"yields \d+ of 9000 tokens; train on more text or write"):
        build(tmp_path / "out", folder, store, tokenizer=None, vocab_size=9000, on_bad_record="quarantine")
    built = build(tmp_path / "out", folder, store, on_bad_record="quarantine")
    assert built.store.meta.vocab_size == store.meta.vocab_size


@pytest.mark.parametrize("left", ["all", "no recipe"])
def test_what_a_build_killed_after_its_last_step_left_is_cleared(
    folder: Path, tmp_path: Path, store: TokenStore, left: str
) -> None:
    recipe = Recipe(
        (str(folder),), Defaults("web", "crawl"), tokenizer=store.path / "tokenizer.json", on_bad_record="quarantine"
    )
    build_store(tmp_path / "out", recipe, workers=1)
    building = tmp_path / ".out.building"
    (building / "units" / "000000").mkdir(parents=True)
    if left == "all":
        (building / "recipe.json").write_text(json.dumps(recipe.facts(plan_units(recipe.inputs))))
    assert build_store(tmp_path / "out", recipe).encoded == 0
    assert not building.exists()
