"""The first panel says what the run does, or the one thing that is wrong: the same expression, run by promtool."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.monitoring.conftest import MONITORING

_TARGET = 'job="xgen-runs",run="tiny-k3f9ab",attempt="1",job_id="7"'
_TRAINS = {'xgen_train_time_seconds_total{phase="train",%s}': "0+15x200"}
_RUNS = {"up{%s}": "1x200", "xgen_train_attempt_start_timestamp_seconds{%s}": "0x200"}
_STEPS = {"xgen_train_last_step_timestamp_seconds{%s}": "0+15x200", "xgen_train_loss{%s}": "2x200"}
_SAVES = {
    'xgen_train_time_seconds_total{phase="train",%s}': "0+15x100 1500x100",
    'xgen_train_time_seconds_total{phase="checkpoint",%s}': "0x100 0+15x100",
}
_STALLS = {"xgen_train_last_step_timestamp_seconds{%s}": "0+15x10 150x190"}

STORIES: dict[str, dict[str, str]] = {
    "train": _RUNS | _STEPS | _TRAINS,
    "checkpoint": _RUNS | _STEPS | _SAVES,
    "stalled": _RUNS | _STALLS | _TRAINS,
    "not answering": _STEPS | _TRAINS | {"up{%s}": "1x100 0x100"},
    "loss not finite": _RUNS | _STEPS | _TRAINS | {"xgen_train_loss{%s}": "2x100" + 100 * " NaN"},
    "not running": {"up{%s}": "1x100 stale", 'xgen_train_time_seconds_total{phase="train",%s}': "0+15x100 stale"},
}


@pytest.mark.parametrize("says", STORIES)
def test_now_panel(says: str, promtool: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    dashboard = json.loads((MONITORING / "dashboards" / "run.json").read_text())
    [expr] = [p["targets"][0]["expr"] for p in dashboard["panels"] if p["title"] == "Now"]
    expr = expr.replace("$__rate_interval", "1m").replace("$run", "tiny-k3f9ab")
    shutil.copytree(MONITORING / "rules", tmp_path / "rules")
    test = {
        "rule_files": ["rules/runs.yml"],
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "15s",
                "input_series": [{"series": s % _TARGET, "values": v} for s, v in STORIES[says].items()],
                # Only the label is looked at: bool turns the value into 1.
                "promql_expr_test": [
                    {
                        "expr": f"({expr}) >= bool 0",
                        "eval_time": "40m",
                        "exp_samples": [{"labels": f'{{phase="{says}"}}', "value": 1}],
                    }
                ],
            }
        ],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(test))
    done = promtool("test", "rules", tmp_path / "test.yml")
    assert done.returncode == 0, done.stdout + done.stderr
