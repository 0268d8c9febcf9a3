"""The configuration and the rules, checked by promtool itself."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import yaml

from tests.monitoring.conftest import MONITORING, run
from xgen.metrics import write_target

Promtool = Callable[..., subprocess.CompletedProcess[str]]


def test_configuration_is_valid_where_it_is_mounted_and_finds_the_runs(promtool: Promtool, tmp_path: Path) -> None:
    mounted = tmp_path / "prometheus"
    shutil.copytree(MONITORING, mounted)
    write_target(
        mounted / "discovery" / "tiny-k3f9ab.json",
        address="127.0.0.1",
        port=4711,
        run="tiny-k3f9ab",
        attempt=1,
        job_id="7",
    )
    done = promtool("check", "config", mounted / "prometheus.yml")
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    assert f"{len(list((MONITORING / 'rules').glob('*.yml')))} rule files found" in done.stdout


def test_rules_are_valid(promtool: Promtool) -> None:
    done = promtool("check", "rules", *sorted((MONITORING / "rules").glob("*.yml")))
    assert done.returncode == 0, done.stderr
    assert "FAILED" not in done.stdout


def test_rules_do_what_they_say(promtool: Promtool) -> None:
    done = promtool("test", "rules", *sorted(MONITORING.glob("*_test.yml")))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_and_explained() -> None:
    rules = yaml.safe_load((MONITORING / "rules" / "runs.yml").read_text())
    alerts = [rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule]
    tests = (MONITORING / "rules_test.yml").read_text()
    docs = (MONITORING.parent / "docs" / "monitoring.md").read_text()
    for alert in alerts:
        assert f"alertname: {alert['alert']}" in tests
        assert f"### {alert['alert']}\n" in docs
        assert alert["annotations"]["runbook_url"] == f"docs/monitoring.md#{alert['alert'].lower()}"


def test_scripts_are_clean() -> None:
    if not shutil.which("shellcheck"):
        return
    done = run("shellcheck", "-x", "-P", MONITORING.parent, *sorted((MONITORING / "dev").iterdir()))
    assert done.returncode == 0, done.stdout
