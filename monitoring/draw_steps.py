"""Draw the loss and the learning rate of a run over its steps, through all its stages, into one PNG.

    python monitoring/draw_steps.py runs/tiny-stages-k3f9ab --out loss.png

Borders of stages, restarts and what the guard did are marked. It reads the run directory alone: no Prometheus.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from picture import theme
from picture.curves import dress, legend, mark, titled

from xgen.runs import RunDir, read_events
from xgen.spec import Pretrain, SpecError, load_resolved

_SMOOTH = 9  # steps


@dataclass(frozen=True)
class Steps:
    """What a run did, step by step: of a step that was trained twice, the last time."""

    records: list[dict[str, Any]]
    restarts: list[int]  # steps of the checkpoints that attempts went on from, but for the ends of stages
    guarded: list[tuple[int, float, str]]  # step, loss, action
    lengths: dict[str, int]  # of sequences, by stage

    @property
    def stages(self) -> list[tuple[str, int, int]]:
        """Name, first and last step."""
        groups = ((name, list(group)) for name, group in groupby(self.records, lambda record: record["stage"]))
        return [(name, group[0]["step"], group[-1]["step"]) for name, group in groups]


def read(run: RunDir) -> Steps:
    """Raises OSError or ValueError for what is no run of the kind pretrain, or has no steps yet."""
    job = load_resolved(run.spec_file)
    if not isinstance(job, Pretrain):
        raise ValueError(f"{run.path} is of the kind {job.kind}; write a run of the kind pretrain")
    by_step: dict[int, dict[str, Any]] = {}
    guarded: list[tuple[int, float, str]] = []
    file = run.metrics_dir / "steps.jsonl"
    for line in file.read_text().splitlines():
        record = json.loads(line)
        if record["loss"] is None:  # JSON knows no NaN
            record["loss"] = math.nan
        by_step[record["step"]] = record
        if record.get("guard"):
            guarded.append((record["step"], record["loss"], record["guard"]))
    if not by_step:
        raise ValueError(f"{file} has no step yet; wait for the first one")
    restored = [event.step for event in read_events(run) if event.event == "restore_end" and event.step]
    borders = {place.last_step for place in job.places}  # where the next stage begins, and nothing went wrong
    restarts = [step for step in restored if step not in borders]
    records = [by_step[step] for step in sorted(by_step)]
    return Steps(records, restarts, guarded, {stage.name: stage.seq_len for stage in job.stages})


def draw(steps: Steps, title: str) -> Figure:
    figure = titled(title, 13, 6.4)
    loss, rate = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    at = [record["step"] for record in steps.records]
    losses = [record["loss"] for record in steps.records]
    loss.plot(at, losses, color=theme.color("blue"), alpha=0.35, linewidth=1)
    for name, first, last in steps.stages:  # the length changes with the stage, and what is usual with it
        own = [record["loss"] for record in steps.records if first <= record["step"] <= last]
        half = _SMOOTH // 2
        smooth = [statistics.median(own[max(0, i - half) : i + half + 1]) for i in range(len(own))]
        loss.plot(range(first, first + len(own)), smooth, color=theme.color("blue"), linewidth=2)
        label = f" {name}\n {steps.lengths[name]:,} tokens"
        loss.text(first, 0.98, label, transform=loss.get_xaxis_transform(), color=theme.TEXT, va="top", fontsize=9.5)
        for axes in (loss, rate):
            axes.axvline(first, color=theme.color("purple"), linewidth=1.2)
    rate.plot(at, [record["lr"] for record in steps.records], color=theme.color("green"), linewidth=1.5)
    mark(loss, [(step, None) for step in steps.restarts], "restart", "orange", "|")
    finite = [value for value in losses if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    room = max(high - low, 1e-6)
    for action in sorted({action for _, _, action in steps.guarded}):
        points = [(step, value) for step, value, done in steps.guarded if done == action]
        shown = [(step, value if low <= value <= high else high) for step, value in points]
        mark(loss, shown, f"guard: {action}", "red", "x")
    loss.set_ylim(low - 0.05 * room, high + 0.25 * room)
    loss.set_ylabel("training loss")
    rate.set_ylabel("learning rate")
    rate.set_xlabel("step")
    dress(loss, rate)
    if loss.get_legend_handles_labels()[0]:
        legend(loss, "lower left")
    return figure


def main() -> int:
    parser = argparse.ArgumentParser(prog="python monitoring/draw_steps.py", description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="its directory")
    parser.add_argument("--out", type=Path, required=True, help="PNG to write")
    arguments = parser.parse_args()
    try:
        steps = read(RunDir(arguments.run))
    except (OSError, ValueError, SpecError) as error:
        print(f"draw_steps: {error}", file=sys.stderr)
        return 1
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    draw(steps, arguments.run.resolve().name).savefig(arguments.out, facecolor=theme.PAGE)
    print(arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
