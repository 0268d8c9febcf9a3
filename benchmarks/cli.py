"""How long the command line takes to start: `python -m benchmarks.cli [--json] [--runs N]`.

The peers say what this machine takes for python alone and for the two libraries that the commands stand on.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

from benchmarks.common import ROOT, Result, time_commands

STATUS = "xgen status of 10,000 ended runs"
GOALS = {"xgen --help": 0.2, "xgen submit --dry-run": 0.4, STATUS: 1.0}
_PROFILE = (
    "scheduler: local\nrun_root: {}\ngpus: {{request: none}}\npartitions: {{gpu: {{max_time: 1h, default: true}}}}\n"
)
_EVENT = '{{"time":{time},"run":"{run}","attempt":{attempt},"job_id":"7","event":"{event}","writer":"{writer}"}}\n'
_ATTEMPT = (("started", 1), ("container_ready", 4), ("exited", 90), ("finished", 91))


def make_ended_runs(root: Path, number: int) -> None:
    """Run directories with what `xgen status` reads of a command that has finished."""
    for index in range(number):
        run = f"done-{index:06}"
        for part in ("events", "attempts/0001"):
            (root / run / part).mkdir(parents=True)
        (root / run / "spec.yaml").write_text((ROOT / "jobs/tiny/hello.yaml").read_text())
        asked = _EVENT.format(time=1e9 + index, run=run, attempt=0, event="queued", writer="client")
        (root / run / "events/client.jsonl").write_text(asked)
        told = (
            _EVENT.format(time=1e9 + index + seconds, run=run, attempt=1, event=event, writer="host")
            for event, seconds in _ATTEMPT
        )
        (root / run / "events/host.jsonl").write_text("".join(told))


def measure(num_runs: int) -> Result:
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, XDG_CACHE_HOME=f"{folder}/cache"):
        place = Path(folder)
        make_ended_runs(place / "runs", 10_000)
        (place / "ten.yaml").write_text(_PROFILE.format(place / "runs"))
        return _measure(num_runs, place / "ten.yaml")


def _measure(num_runs: int, profile: Path) -> Result:
    python = sys.executable
    xgen = str(Path(python).with_name("xgen"))
    figures = {
        "xgen --help": [xgen, "--help"],
        "xgen submit --dry-run": [xgen, "submit", "--dry-run", "jobs/tiny/hello.yaml", "--cluster", "dev"],
        STATUS: [xgen, "status", "--ended", "--cluster", str(profile)],
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
