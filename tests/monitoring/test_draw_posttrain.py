"""The picture of post-training: a panel for each kind, a line for each run, restarts; from the run directories."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.monitoring.conftest import MONITORING
from xgen.runs import EventWriter, RunDir
from xgen.spec import dump, load_job

GREEN, YELLOW, PURPLE = (0x73, 0xBF, 0x69), (0xFA, 0xDE, 0x2A), (0xB8, 0x77, 0xD9)  # first two sources, restarts


def a_run(folder: Path, spec: str, lines: list[dict[str, Any]], restart: int) -> RunDir:
    run = RunDir(folder / f"tiny-{spec}-aaaaaa")
    run.create()
    run.spec_file.write_text(dump(load_job(ROOT / f"jobs/tiny/{spec}.yaml").job))
    events = EventWriter(run, "rank0", 1, "1")
    events.write("restore_end", step=0)
    events.write("restore_end", step=restart)
    name = "evaluation.jsonl" if spec == "grpo" else "validation.jsonl"
    (run.metrics_dir / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


@pytest.fixture
def runs(tmp_path: Path) -> list[RunDir]:
    def domains(key: str, values: list[float]) -> list[dict[str, Any]]:
        return [
            {"step": 10 * number, "domains": {"code": {key: value}, "math": {key: value / 2}}}
            for number, value in enumerate(values)
        ]

    # Without a verdict on any answer there is no pass rate.
    rates = [None, 0.1, 0.9]
    passed = [{"step": 10 * n, "sources": {"math": {"pass_rate": rate}}} for n, rate in enumerate(rates)]
    return [
        a_run(tmp_path, "sft", domains("loss", [6.0, 3.0, 1.0]), 15),
        a_run(tmp_path, "dpo", domains("accuracy", [0.5, 0.7, 1.0]), 15),
        a_run(tmp_path, "grpo", passed, 12),
    ]


def draw(*runs: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(MONITORING / "draw_posttrain.py"), *map(str, runs), "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_every_kind_has_a_panel_with_its_sources_and_restarts(runs: list[RunDir], tmp_path: Path) -> None:
    from matplotlib.image import imread

    out = tmp_path / "pictures/posttrain.png"
    done = draw(*(run.path for run in runs), out=out)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", f"{out}\n")
    pixels = (imread(out)[..., :3] * 255).round().astype(int)
    third = pixels.shape[1] // 3

    def holds(panel: int, color: tuple[int, int, int]) -> bool:
        own = pixels[:, panel * third : (panel + 1) * third]
        return int((abs(own - color) < 40).all(-1).sum()) > 30

    assert [holds(panel, GREEN) for panel in range(3)] == [True, True, False]  # the last has one source
    assert [holds(panel, YELLOW) for panel in range(3)] == [True, True, True]
    assert [holds(panel, PURPLE) for panel in range(3)] == [True, True, True]


@pytest.mark.parametrize("broken", ["no measurement", "another kind", "no run"])
def test_what_cannot_be_drawn_is_said_in_a_line(runs: list[RunDir], tmp_path: Path, broken: str) -> None:
    run = runs[0]
    if broken == "no measurement":
        (run.metrics_dir / "validation.jsonl").write_text("")
        said = "has no line yet"
    elif broken == "another kind":
        run.spec_file.write_text(dump(load_job(ROOT / "jobs/tiny/hello.yaml").job))
        said = "is of the kind command; write a run of the kind sft, preference, rl"
    else:
        run.spec_file.unlink()
        said = "spec.yaml"
    done = draw(run.path, out=tmp_path / "posttrain.png")
    assert done.returncode == 1 and done.stderr.startswith("draw_posttrain: ") and said in done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "posttrain.png").exists()
