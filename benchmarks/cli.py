"""How long the command line takes to start: `python -m benchmarks.cli [--json] [--runs N]`.

The peers say what this machine takes for python alone and for the two libraries that the commands stand on.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.common import ROOT, Result, time_commands

GOALS = {"xgen --help": 0.2, "xgen submit --dry-run": 0.4}


def measure(num_runs: int) -> Result:
    python = sys.executable
    xgen = str(Path(python).with_name("xgen"))
    figures = {
        "xgen --help": [xgen, "--help"],
        "xgen submit --dry-run": [xgen, "submit", "--dry-run", "jobs/tiny/hello.yaml", "--cluster", "dev"],
    }
    peers = {
        "python -c pass": [python, "-c", "pass"],
        "import typer": [python, "-c", "import typer"],
        "import pydantic": [python, "-c", "import pydantic"],
        "import pydantic.BaseModel, yaml": [python, "-c", "import yaml; from pydantic import BaseModel"],
    }
    times = time_commands(figures | peers, num_runs, ROOT)
    return Result("cli", {n: times[n] for n in figures}, {n: times[n] for n in peers}, GOALS)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--runs", type=int, default=20, help="runs of each command (20)")
    options = parser.parse_args()
    result = measure(options.runs)
    result.print(options.json)
    return 0 if all(result.met.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
