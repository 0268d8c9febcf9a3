"""Draw what fine-tuning, preference learning and online RL did for held-out records, over their steps, into one PNG.

    python monitoring/draw_posttrain.py runs/tiny-sft-* runs/tiny-dpo-* runs/tiny-grpo-* --out posttrain.png

A panel for each kind that there is a run of, a colour for each source, a line for each run; where a run was restarted
is marked. It reads the run directories alone: no Prometheus.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from picture import theme
from picture.curves import dress, legend, mark, titled

from xgen.runs import RunDir, read_events
from xgen.spec import SpecError, load_resolved


@dataclass(frozen=True)
class Panel:
    """What is drawn of the runs of a kind: one number of each source, in lines of a file in `metrics/`."""

    title: str
    file: str
    sources: str
    key: str
    goal: float | None = None


_PANELS = {
    "sft": Panel("sft: held-out loss", "validation.jsonl", "domains", "loss"),
    "preference": Panel("preference: held-out accuracy", "validation.jsonl", "domains", "accuracy", 0.8),
    "rl": Panel("rl: held-out pass rate", "evaluation.jsonl", "sources", "pass_rate", 0.8),
}


@dataclass(frozen=True)
class Curves:
    """Of one run: by source, values over steps; and the steps that an attempt went on from."""

    kind: str
    by_source: dict[str, list[tuple[int, float]]]
    restarts: list[int]


def read(run: RunDir) -> Curves:
    """Raises OSError, SpecError or ValueError for what is no run of these kinds, or has measured nothing yet."""
    kind = load_resolved(run.spec_file).kind
    if kind not in _PANELS:
        raise ValueError(f"{run.path} is of the kind {kind}; write a run of the kind {', '.join(_PANELS)}")
    panel, file = _PANELS[kind], run.metrics_dir / _PANELS[kind].file
    by_source: dict[str, dict[int, float]] = defaultdict(dict)
    for line in file.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        for source, measured in record[panel.sources].items():
            if measured[panel.key] is not None:
                by_source[source][record["step"]] = measured[panel.key]
    if not by_source:
        raise ValueError(f"{file} has no line yet; wait for the first one")
    restarts = [event.step for event in read_events(run) if event.event == "restore_end" and event.step]
    return Curves(kind, {source: sorted(points.items()) for source, points in by_source.items()}, restarts)


def draw(runs: Sequence[Curves]) -> Figure:
    kinds = [kind for kind in _PANELS if any(run.kind == kind for run in runs)]
    figure = titled("post-training: what was learnt, on held-out records", 5.2 * len(kinds), 4.6)
    panels = figure.subplots(1, len(kinds), squeeze=False)[0]
    colors = dict(zip(sorted({source for run in runs for source in run.by_source}), cycle(theme.PALETTE), strict=False))
    for axes, kind in zip(panels, kinds, strict=True):
        _draw(axes, _PANELS[kind], [run for run in runs if run.kind == kind], colors)
    dress(*panels)
    for axes, kind in zip(panels, kinds, strict=True):
        legend(axes, "upper right" if _PANELS[kind].goal is None else "lower right")
    return figure


def _draw(axes: Axes, panel: Panel, runs: Sequence[Curves], colors: Mapping[str, str]) -> None:
    for source, color in colors.items():
        for number, run in enumerate(run for run in runs if source in run.by_source):
            steps, values = zip(*run.by_source[source], strict=True)
            label = None if number else source
            axes.plot(steps, values, color=color, linewidth=1.5, alpha=0.8, marker=".", markersize=4, label=label)
    if panel.goal is None:
        axes.set_ylim(bottom=0)
    else:
        axes.set_ylim(-0.02, 1.02)
        axes.axhline(panel.goal, color=theme.FAINT, linewidth=1, linestyle=":")
    mark(axes, [(step, None) for run in runs for step in run.restarts], "preempted, resumed", "purple", "|")
    axes.set_title(panel.title, color=theme.TEXT, fontsize=theme.TITLE, loc="left")
    axes.set_xlabel("step")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python monitoring/draw_posttrain.py", description=__doc__.partition("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="directories of runs")
    parser.add_argument("--out", type=Path, required=True, help="PNG to write")
    arguments = parser.parse_args()
    try:
        curves = [read(RunDir(run)) for run in arguments.runs]
    except (OSError, ValueError, SpecError) as error:
        print(f"draw_posttrain: {error}", file=sys.stderr)
        return 1
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    draw(curves).savefig(arguments.out, facecolor=theme.PAGE)
    print(arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
