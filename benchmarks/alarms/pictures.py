"""Every dashboard, drawn from the Prometheus that has seen it all; a panel without data is a fault."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.alarms.watch import Watch
from benchmarks.common import ROOT
from xgen.runs import RunDir, read_events

# What cannot have data here, and why.
EMPTY_HERE = {
    "no GPU is here that DCGM or NVML could read": {
        "fleet": ["GPUs held, idle"],
        "nodes": [
            "GPU use", "Hottest GPU", "GPUs with an XID", "GPU use by run", "GPU use by node", "GPU memory by run",
            "GPUs to look at",
        ],
    },
    "no processor here has a peak that it is held against": {"run": ["MFU"]},
}  # fmt: skip
_EMPTY = re.compile(r"^draw: panel '(.+?)': (.*)$", re.MULTILINE)


# The moment at which a dashboard is worth a look: when most of this is there.
_MOMENTS = {
    "exporter": 'count(ALERTS{alertname="XgenRunNotAnswering", alertstate="firing"})',
    "nodes": "count(slurm_node_drain_reason_info) and count(status:slurm_nodes:count)",
}
_MOST_ALERTS = 'count(ALERTS{alertstate="firing"})'


def draw_all(watch: Watch, out: Path, run: RunDir, runs: Sequence[str], start: float, end: float) -> list[str]:
    """A PNG a dashboard; returns what is empty and should not be.

    `run` is shown from its first event to its last step, `runs` are held against each other.
    """
    out.mkdir(parents=True, exist_ok=True)
    events = read_events(run)
    its_end = max(event.time for event in events if event.event == "progress")
    faults = []
    for file in sorted((watch.folder / "monitoring/dashboards").glob("*.json")):
        name = file.stem
        options = {"run": ["--run", run.name], "compare": ["--variable", f"run={'|'.join(runs)}"]}.get(name, [])
        first, until = start, end
        if name == "run":
            first, until = events[0].time, its_end
        elif name != "compare":
            until = _when_most(watch, _MOMENTS.get(name, _MOST_ALERTS), start, end)
        done = subprocess.run(
            [
                sys.executable, "monitoring/draw.py", "--prometheus", watch.prometheus, "--dashboard", str(file),
                "--start", str(first), "--end", str(until), "--out", str(out / f"{name}.png"), "--strict", *options,
            ],
            cwd=ROOT, capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip
        allowed = {panel for panels in EMPTY_HERE.values() for panel in panels.get(name, [])}
        found = _EMPTY.findall(done.stderr)
        faults += [f"{name}: {panel}: {what}" for panel, what in found if panel not in allowed]
        if done.returncode and not found:
            faults.append(f"{name}: {done.stderr.strip()[-500:]}")
    return faults


def _when_most(watch: Watch, query: str, start: float, end: float) -> float:
    """In the midst of the time at which the query has its largest value; the end where it never has one."""
    found = watch.ask("query_range", query=query, start=start, end=end, step=1)
    counts = [(float(value), float(at)) for series in found for at, value in series["values"]]
    most = [at for value, at in counts if value == max(counts)[0]]
    return most[len(most) // 2] if most else end
