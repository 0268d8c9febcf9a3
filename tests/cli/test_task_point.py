"""What follows the records of a point while it works."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from tests.cluster_unit.conftest import wait_until
from tests.conftest import ROOT
from xgen.cli.task_point import _prepared, _Watch
from xgen.hang.board import Progress
from xgen.runs import RunDir, StopFlag, TaskContext
from xgen.runs.points import Rule, read_verdict
from xgen.spec import load_job


class Signs(Progress):
    """Counts the signs of progress; at the third the first rank has prepared all."""

    def __init__(self, prepared: Path) -> None:
        super().__init__()
        self.num_signs, self._prepared = 0, prepared

    def touch(self) -> None:
        self.num_signs += 1
        if self.num_signs == 3:
            self._prepared.touch()


def test_a_rank_that_waits_for_the_first_ones_preparation_does_not_look_hung(tmp_path: Path) -> None:
    signs = Signs(tmp_path / "prepared")
    context = TaskContext(RunDir(tmp_path), 1, "1", 1, 1, 2, StopFlag(), None, progress=signs)
    job = load_job(ROOT / "jobs/tiny/sft.yaml").job
    at_last = threading.Timer(60, (tmp_path / "prepared").touch)
    at_last.start()
    try:
        assert _prepared(context, job, lambda _: pytest.fail("it is the work of the first rank")) is None
    finally:
        at_last.cancel()
    assert signs.num_signs == 3


def test_a_milestone_that_could_not_be_written_is_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDir(tmp_path / "0")
    run.metrics_dir.mkdir(parents=True)
    (tmp_path / ".at-10").symlink_to("nowhere")  # which is no folder to write in
    steps = run.metrics_dir / "steps.jsonl"
    steps.write_text(json.dumps({"step": 10, "loss": 2.0}) + "\n")
    watch = _Watch(run, Rule("loss", highest=False, at=(10,), keep=0.5, least=2), judges=True)
    try:
        wait_until(lambda: "not compared yet" in capsys.readouterr().err, lambda: "nothing was said", 60)
        (tmp_path / ".at-10").unlink()
        with steps.open("a") as file:
            file.write(json.dumps({"step": 11, "loss": 1.0}) + "\n")
        wait_until(lambda: read_verdict(run, 10) is not None, lambda: "no verdict", 60)
    finally:
        watch.end()
    verdict = read_verdict(run, 10)
    assert verdict is not None
    assert (verdict.value, verdict.kept) == (2.0, True)
