"""The configuration and the rules, checked by promtool itself."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.monitoring.conftest import MONITORING
from tests.monitoring.known import known, rules
from tests.monitoring.names import labels_of
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
    done = promtool("test", "rules", *sorted((MONITORING / "rules_test").glob("*.yml")))
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_name_metrics_labels_and_limits_that_exist() -> None:
    """What a limit that nobody records is held against never fires."""
    exist = known()
    for rule in rules():
        labels_of(rule["expr"], exist)


def test_every_limit_is_held_against() -> None:
    alerts = "".join(rule["expr"] for rule in rules() if "alert" in rule)
    limits = [rule["record"] for rule in rules() if rule.get("record", "").endswith(":limit")]
    assert [name for name in limits if f"scalar({name})" not in alerts] == []


def test_every_alert_is_tested_and_explained() -> None:
    tests = "".join(file.read_text() for file in (MONITORING / "rules_test").glob("*.yml"))
    docs = (MONITORING.parent / "docs" / "monitoring.md").read_text()
    alerts = [rule for rule in rules() if "alert" in rule]
    assert {f"### {rule['alert']}" for rule in alerts} == set(re.findall("^### Xgen.+", docs, re.MULTILINE))
    for alert in alerts:
        assert re.search(rf"alertname: {alert['alert']}\n +exp_alerts:\n", tests), f"{alert['alert']} never fires"
        assert f"alertname: {alert['alert']}, exp_alerts: []" in tests, f"{alert['alert']} is never silent"
        assert alert["annotations"]["runbook_url"] == f"docs/monitoring.md#{alert['alert'].lower()}"
