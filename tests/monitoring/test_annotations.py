"""Where the dashboard marks borders of stages and what the guard did: the same expressions, run by promtool."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.monitoring.conftest import MONITORING

_RUN = 'job="xgen-runs",run="tiny-k3f9ab",job_id="7"'
_STAGE = 'xgen_train_stage_info{%s,attempt="%d",stage="%s"}'
_START = 'xgen_train_attempt_start_timestamp_seconds{%s,attempt="%d"}'
_GUARD = 'xgen_train_guard_total{%s,attempt="%d",action="%s"}'


def samples(*values: tuple[float, int]) -> str:
    """(value, how often), then the end of the series."""
    return " ".join(f"{value}x{count - 1}" for value, count in values) + " stale"


def later(minutes: int, values: str) -> str:
    return f"_x{4 * minutes - 1} {values}"


# Attempts 1 and 2 are of the stage broad, 3 is of the stage anneal; 10 minutes each, a scrape every 15 s.
STAGES = {
    _STAGE % (_RUN, 1, "broad"): samples((1, 40)),
    _START % (_RUN, 1): samples((5, 40)),
    _STAGE % (_RUN, 2, "broad"): later(12, samples((1, 40))),
    _START % (_RUN, 2): later(12, samples((725, 40))),
    _STAGE % (_RUN, 3, "anneal"): later(24, samples((1, 40))),
    _START % (_RUN, 3): later(24, samples((1445, 40))),
}
# A skip in the first attempt at 5 minutes; the second begins with what the run has counted.
GUARD = {
    _GUARD % (_RUN, 1, "skip"): samples((0, 20), (1, 20)),
    _GUARD % (_RUN, 1, "stop"): samples((0, 40)),
    _GUARD % (_RUN, 2, "skip"): later(12, samples((1, 40))),
    _GUARD % (_RUN, 2, "stop"): later(12, samples((0, 40))),
}
# The cluster's exporter goes on counting over attempts.
RESTARTS = {
    'xgen_run_restarts_total{run="tiny-k3f9ab",reason="preempted"}': samples((0, 20), (1, 60)),
    'xgen_run_restarts_total{run="tiny-k3f9ab",reason="crashed"}': samples((0, 80)),
}


def annotation(name: str) -> str:
    dashboard = json.loads((MONITORING / "dashboards" / "run.json").read_text())
    [expr] = [str(a["expr"]) for a in dashboard["annotations"]["list"] if a["name"] == name]
    return expr.replace("$__rate_interval", "1m").replace("$__range", "1h").replace("$run", "tiny-k3f9ab")


@pytest.mark.parametrize(
    ("name", "series", "minute", "expected"),
    [
        ("Stages", STAGES, 1, {"stage=broad": 5_000}),
        ("Stages", STAGES, 13, {"stage=broad": 5_000}),  # a restart is no border
        ("Stages", STAGES, 11, {"stage=broad": 5_000}),  # nor is a gap
        ("Stages", STAGES, 40, {"stage=broad": 5_000, "stage=anneal": 1_445_000}),
        ("Guard", GUARD, 4, {"action=skip": 0, "action=stop": 0}),
        ("Guard", GUARD, 5.5, {"action=skip": 1, "action=stop": 0}),
        ("Guard", GUARD, 8, {"action=skip": 0, "action=stop": 0}),
        ("Restarts", RESTARTS, 4, {"reason=preempted": 0, "reason=crashed": 0}),
        ("Restarts", RESTARTS, 5.5, {"reason=preempted": 1, "reason=crashed": 0}),
        ("Restarts", RESTARTS, 8, {"reason=preempted": 0, "reason=crashed": 0}),
        ("Guard", GUARD, 12.75, {"action=skip": 0, "action=stop": 0}),  # counted by the attempt before
    ],
)
def test_marks(
    name: str,
    series: dict[str, str],
    minute: float,
    expected: dict[str, float],
    promtool: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    labelled = [(*key.split("="), value) for key, value in expected.items()]
    test = {
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "15s",
                "input_series": [{"series": s, "values": v} for s, v in series.items()],
                "promql_expr_test": [
                    {
                        "expr": annotation(name),
                        "eval_time": f"{round(60 * minute)}s",
                        "exp_samples": [{"labels": f'{{{k}="{label}"}}', "value": v} for k, label, v in labelled],
                    }
                ],
            }
        ],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(test))
    done = promtool("test", "rules", tmp_path / "test.yml")
    assert done.returncode == 0, done.stdout + done.stderr
