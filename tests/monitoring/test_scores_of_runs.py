"""A run that several evaluations score has the scores of the one that has come furthest, in every dashboard."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring.conftest import MONITORING

_OF = 'target="base-k3f9ab"'
_EVALUATIONS = {"early-aaaaaa": (20, 0.2), "late-bbbbbb": (40, 0.6)}


def series() -> dict[str, float]:
    found = {'xgen_run_info{run="base-k3f9ab",project="p",user="u",kind="pretrain"}': 1.0}
    for run, (step, score) in _EVALUATIONS.items():
        found[f'xgen_run_info{{run="{run}",project="p",user="u",kind="evaluate"}}'] = 1
        found[f'xgen_eval_step{{run="{run}",{_OF}}}'] = step
        for task, of in (("average", score), ("vt", 1.0)):
            found[f'xgen_eval_score{{run="{run}",{_OF},suite="ruler",task="{task}",length="4096"}}'] = of
        found[f'xgen_eval_score{{run="{run}",{_OF},suite="harness",task="mmlu"}}'] = score / 2
    return found


def expressions() -> dict[str, str]:
    """Of the column RULER and Knowledge of Pipeline, and RULER of Compare."""
    found = {}
    for name, title in (("pipeline", "Runs"), ("compare", "What they score")):
        dashboard: dict[str, Any] = json.loads((MONITORING / "dashboards" / f"{name}.json").read_text())
        [panel] = [panel for panel in dashboard["panels"] if panel["title"] == title]
        for target in panel["targets"]:
            for suite in ("ruler", "harness"):
                if f'suite=~"{suite}"' in target["expr"]:
                    found[f"{name} {suite}"] = target["expr"]
    return found


@pytest.mark.parametrize("column", ["pipeline ruler", "pipeline harness", "compare ruler", "compare harness"])
def test_the_furthest_evaluation_counts(
    column: str, promtool: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    name, suite = column.split()
    expr = expressions()[column].replace("$project", ".*").replace("$user", ".*").replace("$kind", ".*")
    share = 1.0 if suite == "ruler" else 0.5
    wanted = {"base-k3f9ab": share * 0.6}
    if name == "pipeline":  # and each evaluation its own
        wanted |= {run: share * score for run, (_, score) in _EVALUATIONS.items()}
    test = {
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "15s",
                "input_series": [{"series": one, "values": f"{value}x4"} for one, value in series().items()],
                "promql_expr_test": [
                    {
                        "expr": expr.replace("$run", "base-k3f9ab"),
                        "eval_time": "1m",
                        "exp_samples": [{"labels": f'{{run="{run}"}}', "value": of} for run, of in wanted.items()],
                    }
                ],
            }
        ],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(test))
    done = promtool("test", "rules", tmp_path / "test.yml")
    assert done.returncode == 0, done.stdout + done.stderr
