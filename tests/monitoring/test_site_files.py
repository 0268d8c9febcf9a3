"""What a site mounts or installs: Alertmanager's routes, compose.yaml, systemd units."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring.conftest import MONITORING, run, tool
from tests.monitoring.known import known, rules
from tests.monitoring.names import labels_of
from xgen.metrics.fleet import Runs
from xgen.metrics.gpu import Allocated
from xgen.metrics.slurm import Queue, collectors

ALERTMANAGER = MONITORING / "alertmanager.yml"
COMPOSE = yaml.safe_load((MONITORING / "compose.yaml").read_text())
UNITS = sorted((MONITORING / "systemd").iterdir())


def alerts() -> dict[str, frozenset[str]]:
    """Labels by name."""
    exist = known()
    return {rule["alert"]: labels_of(rule["expr"], exist) for rule in rules() if "alert" in rule}


def test_alertmanager_takes_its_file() -> None:
    done = run(tool("amtool"), "check-config", ALERTMANAGER)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("labels", "group"),
    [
        ("alertname=XgenRunStalled severity=critical run=r", ["run"]),
        ("alertname=XgenRunSlowRank severity=warning run=r", ["run"]),
        ("alertname=XgenSchedulerDown severity=critical instance=login", ["alertname", "instance"]),
    ],
)
def test_a_run_is_one_message_and_the_cluster_one_of_a_kind(labels: str, group: list[str]) -> None:
    route = yaml.safe_load(ALERTMANAGER.read_text())["route"]
    done = run(tool("amtool"), "config", "routes", "test", "--tree", "--config.file", ALERTMANAGER, *labels.split())
    assert done.returncode == 0, done.stderr
    taken = route["routes"][0] if '{run=""}' in done.stdout else route
    assert taken["group_by"] == group
    assert done.stdout.rstrip().endswith("team")


def test_secrets_are_in_files() -> None:
    text = ALERTMANAGER.read_text()
    assert "credentials_file: secrets/" in text
    assert not re.search(r"\b(password|credentials|api_url|routing_key|api_key|token): ", text)


def test_inhibitions_name_alerts_and_labels_that_exist() -> None:
    exist = alerts()
    for rule in yaml.safe_load(ALERTMANAGER.read_text())["inhibit_rules"]:
        source, target = (_named(rule[f"{side}_matchers"], exist) for side in ("source", "target"))
        assert source and target and not source & target
        for label in rule["equal"]:
            for name in source | target:
                assert label in exist[name], f"{name} has no label {label}: it would inhibit what lacks it too"


def test_without_a_scheduler_no_collector_that_asks_it_is_told_of() -> None:
    """All that ask slurmctld; sacct asks the database, and the ping is how the scheduler is known to be down."""
    fleet = Runs(Path("/nowhere"), "atlas", "main")
    asking = {one.name for one in [*collectors([]), Allocated(Queue(), fleet)]} - {"controller", "ended"}
    inhibitions = yaml.safe_load((MONITORING / "alertmanager.yml").read_text())["inhibit_rules"]
    [quiet] = [one for one in inhibitions if one["source_matchers"] == ['alertname="XgenSchedulerDown"']]
    assert quiet["target_matchers"][0] == 'alertname="XgenExporterBlind"'
    assert set(re.findall(r"\w+", quiet["target_matchers"][1].partition("=~")[2])) == asking


def _named(matchers: list[str], exist: dict[str, frozenset[str]]) -> set[str]:
    [pattern] = [match[1] for text in matchers if (match := re.match(r'alertname=~?"(.+)"$', text))]
    found = {name for name in exist if re.fullmatch(pattern, name)}
    words = re.sub(r"(\w+)\(([^)]+)\)", lambda m: "|".join(m[1] + word for word in m[2].split("|")), pattern).split("|")
    assert found == set(words), pattern
    return found


def test_compose_pins_its_images_and_mounts_what_is_there() -> None:
    for name, service in COMPOSE["services"].items():
        assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]), name
        for volume in service["volumes"]:
            source = volume["source"] if isinstance(volume, dict) else volume.split(":")[0]
            if source.startswith("./") and not source.startswith("./secrets"):
                assert (MONITORING / source).exists(), f"{name}: {source}"
            named = re.fullmatch(r"[a-z]+", source)
            assert not named or source in COMPOSE["volumes"], f"{name}: {source}"


def test_compose_and_units_write_options_that_the_programs_know() -> None:
    written = {name: COMPOSE["services"][name]["command"] for name in ("prometheus", "alertmanager")}
    for unit in UNITS:
        _, program, *options = _exec_start(unit)
        written[f"{unit.name} {program}"] = options
    for name, options in written.items():
        if "exporter" not in name:
            done = run(tool("prometheus-alertmanager" if "alertmanager" in name else "prometheus"), "--help")
            for option in options:
                assert f" {option.split('=')[0]}" in done.stdout + done.stderr, f"{name}: {option}"
    done = run(sys.executable, "-m", "xgen.cli.main", "exporter", "--help")
    assert all(option in done.stdout for option in ("--cluster",))


def _exec_start(unit: Path) -> list[str]:
    [line] = [line for line in unit.read_text().replace("\\\n", " ").splitlines() if line.startswith("ExecStart=")]
    return ["ExecStart", *shlex.split(line.removeprefix("ExecStart="))]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_takes_the_unit_and_finds_it_confined(unit: Path, tmp_path: Path) -> None:
    copy = tmp_path / unit.name.replace("@.", "@atlas.")
    copy.write_text(unit.read_text().replace("/opt/xgen/bin/xgen", "/bin/true"))  # what a site installs
    done = run("systemd-analyze", "verify", "--man=no", copy)
    assert (done.returncode, done.stderr) == (0, "")
    done = run("systemd-analyze", "security", "--offline=true", "--threshold=20", copy)  # 2.0 of 10
    assert done.returncode == 0, done.stdout
    settings = dict(line.split("=", 1) for line in unit.read_text().splitlines() if re.match(r"\w+=", line))
    assert settings["User"] not in ("", "root")


def _service(name: str) -> dict[str, Any]:
    service: dict[str, Any] = COMPOSE["services"][name]
    return service


def test_grafana_of_compose_finds_prometheus_and_the_dashboards() -> None:
    assert _service("grafana")["environment"]["PROMETHEUS_URL"] == "http://127.0.0.1:9090"
    listens = [option for option in _service("prometheus")["command"] if option.startswith("--web.listen-address=")]
    assert listens == ["--web.listen-address=127.0.0.1:9090"]
    [provider] = yaml.safe_load((MONITORING / "grafana/provisioning/dashboards/xgen.yml").read_text())["providers"]
    assert f"./dashboards:{provider['options']['path']}:ro" in _service("grafana")["volumes"]
