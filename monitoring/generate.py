"""Write monitoring/dashboards/*.json from monitoring/source/.

python -m monitoring.generate            # from the repository's root
python -m monitoring.generate --check    # exit code 1 where a file is not what the source says
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from monitoring.source import compare, exporter, fleet, nodes, pipeline, posttrain, run

FOLDER = Path(__file__).parent / "dashboards"
DASHBOARDS = tuple(module.DASHBOARD for module in (fleet, run, compare, posttrain, nodes, pipeline, exporter))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where a file is stale")
    check = parser.parse_args().check
    there = {file.name: file.read_text(encoding="utf-8") for file in FOLDER.glob("*.json")}
    wanted = generated()
    for name in sorted(there.keys() - wanted.keys()):
        print(f"monitoring/dashboards/{name}: no source in monitoring/source/; remove it", file=sys.stderr)
    stale = sorted(name for name, text in wanted.items() if there.get(name) != text)
    for name in stale:
        if check:
            where = f"monitoring/dashboards/{name}"
            print(f"{where}: not what monitoring/source/ says; write: python -m monitoring.generate", file=sys.stderr)
        else:
            (FOLDER / name).write_text(wanted[name], encoding="utf-8")
    return 1 if there.keys() - wanted.keys() or (check and stale) else 0


def generated() -> dict[str, str]:
    """The text of every file, by its name."""
    return {
        f"{dashboard.name}.json": json.dumps(dashboard.json(), indent=2, ensure_ascii=False) + "\n"
        for dashboard in DASHBOARDS
    }


if __name__ == "__main__":
    sys.exit(main())
