"""`xgen monitor` with real servers: an alert fires, reaches a webhook, silences what follows from it, and is resolved.

Prometheus, Alertmanager and exporter run with the files of monitoring/, whose waits are made short.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.metrics.fake_slurm import wait_for
from tests.monitoring.conftest import MONITORING, free_port, monitor, tool, write_profile
from tests.monitoring.live import play_attempt
from xgen.metrics import RunExporter, remove_target, write_target
from xgen.runs import EventWriter, RunDir, read_events, replay

HANGS, GOOD = "hangs-k3f9ab", "good-m1n2op"
_SHORT = (
    # Prometheus takes 5 s to see that a file is gone; so long a run that has ended looks dead.
    ("rules/limits.yml", r"15 \* 60", "10"),
    ("rules/runs.yml", r"for: 2m", "for: 10s"),
    ("rules/cluster.yml", r"for: 2m", "for: 2s"),
    ("alertmanager.yml", r"group_(wait|interval): \w+", r"group_\1: 1s"),
)


@dataclass(frozen=True)
class Webhook:
    """Takes what Alertmanager sends."""

    url: str
    messages: list[dict[str, Any]] = field(default_factory=list)

    def alerts(self, **labels: str) -> list[dict[str, Any]]:
        """All that arrived with these labels, with the labels of their group."""
        told = [alert | {"group": message["groupLabels"]} for message in self.messages for alert in message["alerts"]]
        return [alert for alert in told if labels.items() <= alert["labels"].items()]

    def wait(self, alertname: str, status: str, **labels: str) -> dict[str, Any]:
        def arrived() -> list[dict[str, Any]]:
            return [a for a in self.alerts(alertname=alertname, **labels) if a["status"] == status]

        wait_for(arrived, 120)
        return arrived()[0]


@pytest.fixture(scope="module")
def webhook() -> Iterator[Webhook]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            hook.messages.append(json.loads(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hook = Webhook(f"http://127.0.0.1:{server.server_port}/alerts")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield hook
    server.shutdown()
    server.server_close()


@dataclass(frozen=True)
class Monitor:
    folder: Path
    options: list[str | Path]

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def up(self, *more: str | Path) -> subprocess.CompletedProcess[str]:
        return monitor("up", self.state, *self.options, *more)

    def seen(self) -> dict[str, dict[str, Any]]:
        answer = json.loads(monitor("status", self.state, "--json").stdout)
        assert isinstance(answer, dict)
        return answer

    def ask(self, name: str, path: str) -> Any:
        with urllib.request.urlopen(self.seen()[name]["url"] + path, timeout=10) as answer:
            return json.load(answer)


def prepared(folder: Path, *more: str | Path) -> Monitor:
    for name in ("prometheus", "prometheus-alertmanager", "promtool", "amtool"):
        tool(name)
    config = folder / "config"
    shutil.copytree(MONITORING, config)
    for name, long, short in _SHORT:
        text, number = re.subn(long, short, (config / name).read_text())
        assert number, f"{name} has no {long}"
        (config / name).write_text(text)
    profile = write_profile(folder / "cluster.yaml", folder / "runs")
    ports = ["--port", str(free_port()), "--alertmanager-port", str(free_port())]
    return Monitor(folder, ["--cluster", profile, "--config", config, "--interval", "1s", *ports, *more])


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, webhook: Webhook) -> Iterator[Monitor]:
    stack = prepared(tmp_path_factory.mktemp("monitor"), "--webhook", webhook.url)
    try:
        done = stack.up()
        assert done.returncode == 0, done.stderr
        yield stack
    finally:
        done = monitor("down", stack.state, "--remove")
        assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in stack.folder.iterdir()) == ["cluster.yaml", "config", "runs"]


def test_a_hang_and_a_death_arrive_once_and_are_resolved_and_a_preemption_is_silent(
    stack: Monitor, webhook: Webhook
) -> None:
    good = threading.Thread(target=_play_good, args=(stack.folder / "runs",))
    good.start()
    run = RunDir(stack.folder / "runs" / HANGS)
    run.create()
    EventWriter(run, "client", 0, "").write("submitted")
    EventWriter(run, "host", 1, "7").write("started", nodes="n1")
    trainer = RunExporter(replay(read_events(run)))
    port = trainer.start()
    write_target(run.discovery_file, address="127.0.0.1", port=port, run=run.name, attempt=1, job_id="7")
    told = webhook.wait("XgenRunStalled", "firing", run=HANGS)
    assert told["group"] == {"run": HANGS}
    assert told["labels"]["severity"] == "critical"
    assert told["annotations"]["summary"].startswith(f"Run {HANGS} (attempt 1, job 7) has not finished a step for ")
    assert told["annotations"]["runbook_url"] == "docs/monitoring.md#xgenrunstalled"

    trainer.close()  # it dies: its target stays, its last series are 3 s old
    silencer = webhook.wait("XgenRunNotAnswering", "firing", run=HANGS)["fingerprint"]
    wait_for(lambda: _inhibitors(stack, "XgenRunStalled") == [silencer], 60)

    remove_target(run.discovery_file)
    webhook.wait("XgenRunNotAnswering", "resolved", run=HANGS)
    good.join()
    deaths = webhook.alerts(run=HANGS, alertname="XgenRunNotAnswering")
    assert [alert["status"] for alert in deaths] == ["firing", "resolved"]
    assert webhook.alerts(run=GOOD) == []
    seen = stack.ask("prometheus", f"/api/v1/query?query=count_over_time(up{{run='{GOOD}'}}[5m])")["data"]["result"]
    assert {series["metric"]["attempt"] for series in seen} == {"1", "2"}


def _play_good(root: Path) -> None:
    """Preempted once, and finished."""
    run = RunDir(root / GOOD)
    run.create()
    EventWriter(run, "client", 0, "").write("submitted")
    play_attempt(run, 1, first_step=1, steps=80, stage="broad", preempted=True)
    play_attempt(run, 2, first_step=81, steps=80, stage="broad")


def _inhibitors(stack: Monitor, alertname: str) -> list[str]:
    """Fingerprints of the alerts for which this one is not told."""
    for alert in stack.ask("alertmanager", "/api/v2/alerts"):
        if alert["labels"]["alertname"] == alertname:
            inhibitors: list[str] = alert["status"]["inhibitedBy"]
            return inhibitors
    return []


def test_an_exporter_that_is_killed_is_blindness_until_up_starts_it_again(stack: Monitor, webhook: Webhook) -> None:
    assert stack.up().returncode == 0  # and nothing of what a test before it has left
    before = stack.seen()
    assert all(one["ready"] for one in before.values() if one["installed"])
    assert stack.up().returncode == 0
    assert {name: one["pid"] for name, one in stack.seen().items()} == {n: one["pid"] for n, one in before.items()}

    wait_for(lambda: _targets(stack) == {"up"}, 60)
    os.kill(before["exporter"]["pid"], signal.SIGKILL)
    told = webhook.wait("XgenExporterBlind", "firing")
    assert (told["labels"]["severity"], told["group"]["alertname"]) == ("critical", "XgenExporterBlind")
    assert monitor("status", stack.state).returncode == 1

    assert stack.up().returncode == 0  # on another port: the profile's is 0
    assert monitor("status", stack.state).returncode == 0
    after = stack.seen()
    assert after["exporter"]["url"] != before["exporter"]["url"]
    assert after["prometheus"]["pid"] == before["prometheus"]["pid"]
    webhook.wait("XgenExporterBlind", "resolved")
    wait_for(lambda: _targets(stack) == {"up"}, 60)


def test_the_webhook_is_for_nobody_else_to_read(stack: Monitor, webhook: Webhook) -> None:
    routes = stack.state / "alertmanager" / "alertmanager.yml"
    routes.chmod(0o644)  # as older ones made it
    stack.state.chmod(0o755)
    assert stack.up().returncode == 0
    assert webhook.url in routes.read_text()
    assert (routes.stat().st_mode & 0o777, stack.state.stat().st_mode & 0o777) == (0o600, 0o700)


def test_what_is_not_given_stays_as_in_the_last_up_until_it_is_taken_back(stack: Monitor, webhook: Webhook) -> None:
    assert stack.up().returncode == 0
    before, routes = stack.seen(), stack.state / "alertmanager" / "alertmanager.yml"
    cluster = stack.options[:2]

    done = monitor("up", stack.state, *cluster)
    assert done.returncode == 0, done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("as in the last up: --config ") and "--interval 1s" in line
    assert "--webhook 127.0.0.1" in line and webhook.url not in line  # whose path may be a secret
    assert stack.seen() == before  # on the same ports, with no new process
    assert webhook.url in routes.read_text()
    assert (stack.state / "options.json").stat().st_mode & 0o777 == 0o600

    again = "evaluation_interval: 1s"
    assert again in (stack.state / "prometheus" / "prometheus.yml").read_text()
    done = monitor("up", stack.state, *cluster, "--webhook", "none", "--interval", "none")
    assert done.returncode == 0 and "webhook" not in done.stderr and "interval" not in done.stderr
    done = monitor("up", stack.state, *cluster)
    assert done.returncode == 0 and "webhook" not in done.stderr
    assert webhook.url not in routes.read_text()
    assert again not in (stack.state / "prometheus" / "prometheus.yml").read_text()
    assert stack.up().returncode == 0
    assert webhook.url in routes.read_text()


def _targets(stack: Monitor) -> set[str]:
    """How the exporter is, as Prometheus sees it."""
    targets = stack.ask("prometheus", "/api/v1/targets")["data"]["activeTargets"]
    return {target["health"] for target in targets if target["labels"]["job"] == "xgen-exporter"}


def test_what_is_wrong_in_a_rule_is_said_and_what_runs_goes_on(stack: Monitor) -> None:
    rules = stack.folder / "config" / "rules" / "limits.yml"
    good, pid = rules.read_text(), stack.seen()["prometheus"]["pid"]
    rules.write_text(good.replace("expr: 0.7", "expr: 0.7 +"))
    done = stack.up()
    assert done.returncode == 1
    assert "promtool says:" in done.stderr and "parse error" in done.stderr and "Traceback" not in done.stderr
    assert stack.seen()["prometheus"]["pid"] == pid
    rules.write_text(good.replace("expr: 0.7", "expr: 0.6"))
    assert stack.up().returncode == 0
    query = "/api/v1/query?query=xgen:throughput_ratio:limit"
    wait_for(lambda: [r["value"][1] for r in stack.ask("prometheus", query)["data"]["result"]] == ["0.6"], 60)


def test_a_state_folder_of_somebody_else_and_a_taken_port_are_refused(stack: Monitor, tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    done = monitor("up", tmp_path, *stack.options)
    assert (done.returncode, (tmp_path / "mine").exists()) == (1, True)
    assert f"--state: {tmp_path} is not empty and not made by xgen monitor" in done.stderr
    done = monitor("up", tmp_path / "other", *stack.options, "--no-exporter")
    assert done.returncode == 1
    assert re.search(r"--alertmanager-port: \d+ is taken by another program; write --alertmanager-port N", done.stderr)
    assert monitor("down", tmp_path / "other", "--remove").returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
