"""What an interrupted build has left, and what of it the next one may take over.

`.NAME.building/` holds recipe.json (what the store follows from), units.json (what each unit reads), the units, and the
store that is being put together.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xgen.data.errors import StoreError
from xgen.data.staging import sync_tree
from xgen.data.writer import UNIT_FILE, UnitMeta

_RECIPE_FILE, _UNITS_FILE = "recipe.json", "units.json"
_UNITS, _STORE = "units", "store"


def store_folder(building: Path) -> Path:
    """Where the store is put together."""
    return building / _STORE


def unit_folder(building: Path, number: int) -> Path:
    """Where unit `number` lies when it is complete."""
    return building / _UNITS / f"{number:06}"


@contextmanager
def unit_in_place(building: Path, number: int) -> Iterator[Path]:
    """An empty folder that becomes that of the unit when the block ends without an error."""
    folder = unit_folder(building, number)
    unfinished = folder.with_suffix(".tmp")
    for leftover in (folder, unfinished):
        shutil.rmtree(leftover, ignore_errors=True)
    unfinished.mkdir(parents=True)
    yield unfinished
    sync_tree(unfinished)
    unfinished.rename(folder)


def clear_finished(building: Path, facts: dict[str, str]) -> None:
    """Remove what a build of exactly this recipe has left that was killed after its last step."""
    if _read(building / _RECIPE_FILE) in (None, facts):
        shutil.rmtree(building, ignore_errors=True)


def take_over(building: Path, facts: dict[str, str], units: Sequence[str], by_unit: set[str]) -> None:
    """Make `building` ready for the recipe that `facts` describes, whose units read what the names `units` say.

    Kept are the units that this recipe would write again: all of the same recipe; where only facts `by_unit` differ,
    those that read the same and, when bad records are now treated otherwise, have none.
    Raises StoreError when anything else differs and a unit is complete.
    """
    earlier = _read(building / _RECIPE_FILE)
    if earlier == facts:
        for unfinished in (building / _UNITS).glob("*.tmp"):
            shutil.rmtree(unfinished)
        return
    different = [key for key in sorted(facts) if (earlier or {}).get(key) != facts[key]]
    if earlier and by_unit.issuperset(different):
        # First what was put together of all units: a unit that has given its parts away is then not whole.
        shutil.rmtree(building / _STORE, ignore_errors=True)
        before = (_read(building / _UNITS_FILE) or {}).get("units", [])
        for folder in (building / _UNITS).iterdir():
            number = int(folder.stem)
            same = number < len(units) and before[number : number + 1] == [units[number]]
            if folder.suffix or not same or ("on-bad-record" in different and _has_bad(folder)):
                (folder / UNIT_FILE).unlink(missing_ok=True)
                shutil.rmtree(folder)
    elif earlier is not None and next((building / _UNITS).glob(f"*[0-9]/{UNIT_FILE}"), None):
        what = f"holds an interrupted build with other {', '.join(different)}"
        raise StoreError(building, what, "run that one to its end, or remove the folder to begin again")
    else:
        shutil.rmtree(building, ignore_errors=True)
        (building / _UNITS).mkdir(parents=True)
    _write(building / _UNITS_FILE, {"units": list(units)})
    _write(building / _RECIPE_FILE, facts)  # last: until then the next call does this again


def _has_bad(unit: Path) -> bool:
    try:
        return bool(UnitMeta.model_validate_json((unit / UNIT_FILE).read_bytes()).bad)
    except (OSError, ValueError):
        return True


def _read(file: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    return content


def _write(file: Path, content: dict[str, Any]) -> None:
    file.with_suffix(".tmp").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    file.with_suffix(".tmp").rename(file)
