"""What evaluations found, as the exporter serves it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.metrics.fake_slurm import FakeSlurm, Series, slurm, value
from tests.metrics.fleet_runs import FleetRun, fleet, polled, root, says
from xgen.metrics.fleet.scores import MOST

__all__ = ["root", "slurm"]
EVALUATE: dict[str, Any] = {
    "kind": "evaluate", "name": "ruler", "checkpoints": {"run": "base-aaaaaa", "every": 10, "follow": True},
    "recall": {"lengths": [64], "samples": 4}, "array": {"shards": 4},
    "resources": {"gpus_per_node": 1, "time": "1h"},
}  # fmt: skip
OF = {"run": "ruler-k3f9ab", "target": "base-aaaaaa"}


def told(run: FleetRun, time: float, step: int, checkpoint: str = "", **scores: float) -> None:
    scores = {key.replace("__", "/"): value for key, value in scores.items()}
    run.told(
        time, "evaluated", writer="evaluation", step=step, checkpoint=checkpoint or f"base-aaaaaa@{step}", scores=scores
    )


def begun(root: Path) -> FleetRun:
    run = FleetRun(root, "ruler-k3f9ab", EVALUATE, "81")
    run.told(time.time() - 100, "submitted", 0)
    return run


def shown(series: Series) -> dict[str, float]:
    """Scores by task."""
    return {dict(labels)["task"]: v for (name, labels), v in series.items() if name == "xgen_eval_score"}


def test_scores_are_served_by_what_they_are_of_each_in_its_unit(root: Path, slurm: FakeSlurm) -> None:
    run, now = begun(root), time.time()
    told(run, now - 50, 20, ruler__vt__4096=0.5, ruler__wavg_inc__0=0.4, ruler__effective_length__0=8192,
         perplexity__old_books__65536=2.5, harness__arc_challenge__0=0.25)  # fmt: skip
    series = polled(fleet(root, says(slurm, "81_1 RUNNING")))
    assert value(series, "xgen_eval_score", suite="ruler", task="vt", length="4096", **OF) == 0.5
    assert value(series, "xgen_eval_score", suite="ruler", task="wavg_inc", length="", **OF) == 0.4
    assert value(series, "xgen_eval_score", suite="harness", task="arc_challenge", length="", **OF) == 0.25
    assert len(shown(series)) == 3  # no share of one are nats and tokens
    assert value(series, "xgen_eval_loss_nats", task="old_books", length="65536", **OF) == 2.5
    assert value(series, "xgen_eval_effective_length_tokens", **OF) == 8192
    assert value(series, "xgen_eval_step", **OF) == 20
    assert value(series, "xgen_eval_timestamp_seconds", **OF) == now - 50


def test_a_folder_is_a_target_by_its_path(root: Path, slurm: FakeSlurm) -> None:
    told(begun(root), time.time(), 0, "/models/a@b", recall__json_kv__64=1.0)
    series = polled(fleet(root, says(slurm, "81_1 RUNNING")))
    assert value(series, "xgen_eval_step", run="ruler-k3f9ab", target="/models/a@b") == 0


def test_checkpoints_that_are_done_between_two_polls_are_shown_one_after_the_other(
    root: Path, slurm: FakeSlurm
) -> None:
    run, now = begun(root), time.time()
    runs = fleet(root, says(slurm, "81_1 RUNNING"))
    assert shown(polled(runs)) == {}
    for step in (10, 20, 30):
        told(run, now - 9 + step / 10, step, ruler__vt__64=step / 100)
    steps = [value(polled(runs), "xgen_eval_step", **OF) for _ in range(2)]
    told(run, now - 5, 40, ruler__vt__64=0.4)
    steps += [value(polled(runs), "xgen_eval_step", **OF) for _ in range(3)]
    assert steps == [10, 20, 30, 40, 40]
    assert shown(polled(runs)) == {"vt": 0.4}
    # What there was before an exporter began is history.
    assert value(polled(fleet(root, says(slurm, "81_1 RUNNING"))), "xgen_eval_step", **OF) == 40


def test_a_step_that_is_scored_late_does_not_take_the_place_of_a_higher_one(root: Path, slurm: FakeSlurm) -> None:
    run, now = begun(root), time.time()
    told(run, now - 9, 50, ruler__vt__64=0.5)
    told(run, now - 8, 10, ruler__vt__64=0.1)
    runs = fleet(root, says(slurm, "81_1 RUNNING"))
    assert shown(polled(runs)) == {"vt": 0.5}
    told(run, now - 7, 20, ruler__vt__64=0.2)
    assert shown(polled(runs)) == shown(polled(runs)) == {"vt": 0.5}


def test_a_file_of_another_node_that_is_seen_late_brings_no_step_back(root: Path, slurm: FakeSlurm) -> None:
    run, now = begun(root), time.time()
    runs = fleet(root, says(slurm, "81_1 RUNNING"))
    told(run, now - 9, 10, ruler__vt__64=0.1)
    polled(runs)
    told(run, now - 8, 20, ruler__vt__64=0.2)
    polled(runs)
    run.told(now - 60, "started", writer="host")  # all is read again
    assert shown(polled(runs)) == shown(polled(runs)) == {"vt": 0.2}


def test_no_evaluation_has_more_series_than_is_promised(root: Path, slurm: FakeSlurm) -> None:
    told(begun(root), time.time(), 10, "", **{f"harness__task_{number}__0": 0.5 for number in range(2 * MOST)})
    assert len(shown(polled(fleet(root, says(slurm, "81_1 RUNNING"))))) == MOST
