"""The picture of a run over its steps: stages, restarts and what the guard did, from the run directory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.monitoring.conftest import MONITORING
from xgen.runs import EventWriter, RunDir
from xgen.spec import Pretrain, dump, load_job


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """The tiny stages, restarted in the first, with a loss that is no number."""
    job = load_job(ROOT / "jobs/tiny/pretrain-stages.yaml").job
    assert isinstance(job, Pretrain)
    run = RunDir(tmp_path / "tiny-stages-aaaaaa")
    run.create()
    run.spec_file.write_text(dump(job))
    events = EventWriter(run, "rank0", 1, "1")
    events.write("restore_end", step=50)
    events.write("restore_end", step=job.places[0].last_step)
    steps = [(step, place) for place in job.places for step in range(place.first_step + 1, place.last_step + 1)]
    lines = [
        {
            "step": step, "loss": None if step == 70 else 9 - step / 100, "lr": place.learning_rate(step),
            "stage": place.stage.name, "guard": "skip" if step == 70 else "",
        }
        for step, place in [*steps[:60], *steps[50:]]
    ]  # fmt: skip
    (run.metrics_dir / "steps.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def draw(run: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(MONITORING / "draw_steps.py"), str(run), "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_stages_restarts_and_guard_are_in_the_picture(run: RunDir, tmp_path: Path) -> None:
    import numpy as np
    from matplotlib.image import imread

    done = draw(run.path, tmp_path / "loss.png")
    assert (done.returncode, done.stderr) == (0, "")
    pixels = (imread(tmp_path / "loss.png")[..., :3] * 255).round().astype(int)

    def columns(color: tuple[int, int, int]) -> int:
        """Groups of columns that hold the colour, right of the legend."""
        seen = np.flatnonzero((abs(pixels[:, 180:] - color) < 40).all(-1).any(0))
        return int((np.diff(seen) > 3).sum() + 1) if len(seen) else 0

    assert columns((0xB8, 0x77, 0xD9)) == 3  # borders of stages; that of the first is left of these columns
    assert columns((0xFF, 0x98, 0x30)) == 1  # the restart; the begin of the second stage is none
    assert columns((0xF2, 0x49, 0x5C)) == 1  # the step that was skipped


def test_a_run_without_steps_is_an_error_that_says_so(run: RunDir, tmp_path: Path) -> None:
    (run.metrics_dir / "steps.jsonl").write_text("")
    done = draw(run.path, tmp_path / "loss.png")
    assert done.returncode == 1
    assert "has no step yet; wait for the first one" in done.stderr
    done = draw(tmp_path / "nope", tmp_path / "loss.png")
    assert (done.returncode, "no such file" in done.stderr) == (1, True)
