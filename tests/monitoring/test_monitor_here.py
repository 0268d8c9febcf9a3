"""What `xgen monitor` makes of what is installed here, and of a profile with TLS and passwords."""

from __future__ import annotations

import json
import os
import shutil
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml

from tests.metrics.fake_slurm import wait_for
from tests.metrics.test_exporter_web import certificate
from tests.monitoring.conftest import MONITORING, free_port, monitor, tool, write_profile

__all__ = ["certificate"]
# Answers like Grafana, which is in no package index, and shows what it was started with.
_GRAFANA = """#!{python}
import http.server, json, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(dict(os.environ)).encode())
address = os.environ["GF_SERVER_HTTP_ADDR"], int(os.environ["GF_SERVER_HTTP_PORT"])
http.server.HTTPServer(address, Handler).serve_forever()
"""


def test_an_exporter_with_tls_and_passwords_is_scraped_and_grafana_finds_the_dashboards(
    tmp_path: Path, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tool("prometheus")
    tool("prometheus-alertmanager")
    users, profile = tmp_path / "users", write_profile(tmp_path / "cluster.yaml", tmp_path / "runs")
    users.write_text("prometheus:correct horse: battery\n")
    users.chmod(0o600)
    content = yaml.safe_load(profile.read_text())
    cert, key = map(str, certificate)
    content["metrics"] |= {"tls": {"cert": cert, "key": key}, "basic_auth": {"file": str(users)}}
    profile.write_text(yaml.safe_dump(content))
    grafana = tmp_path / "bin" / "grafana-server"
    grafana.parent.mkdir()
    grafana.write_text(_GRAFANA.format(python=sys.executable))
    grafana.chmod(0o755)
    monkeypatch.setenv("PATH", f"{grafana.parent}:{os.environ['PATH']}")
    state, port = tmp_path / "state", free_port()
    ports = ["--alertmanager-port", str(free_port()), "--grafana-port", str(free_port())]
    try:
        done = monitor("up", state, "--cluster", profile, "--interval", "1s", "--port", str(port), *ports, "--json")
        assert done.returncode == 0, done.stderr
        urls = {name: one["url"] for name, one in json.loads(done.stdout).items()}
        assert urls["exporter"].startswith("https://127.0.0.1:")
        wait_for(lambda: _health(urls["prometheus"]) == "up", 60)
        secret = state / "prometheus" / "exporter-password"
        assert (secret.read_text(), secret.stat().st_mode & 0o777) == ("correct horse: battery", 0o600)
        with urllib.request.urlopen(urls["grafana"] + "/api/health", timeout=5) as answer:
            environment = json.load(answer)
        assert environment["PROMETHEUS_URL"] == urls["prometheus"] == f"http://127.0.0.1:{port}"
        provisioning = Path(environment["GF_PATHS_PROVISIONING"])
        [provider] = yaml.safe_load((provisioning / "dashboards" / "xgen.yml").read_text())["providers"]
        assert provider["options"]["path"] == str(MONITORING / "dashboards")
    finally:
        assert monitor("down", state).returncode == 0
    left = sorted(path.name for path in state.iterdir())
    assert left == ["alertmanager", "exporter", "grafana", "options.json", "prometheus", "xgen-monitor"]
    assert (state / "prometheus" / "data").is_dir()


def _health(prometheus: str) -> str:
    with urllib.request.urlopen(f"{prometheus}/api/v1/targets", timeout=5) as answer:
        targets = json.load(answer)["data"]["activeTargets"]
    return next((str(t["health"]) for t in targets if t["labels"]["job"] == "xgen-exporter"), "")


def test_what_is_not_installed_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = write_profile(tmp_path / "cluster.yaml", tmp_path / "runs")
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    done = monitor("up", tmp_path / "state", "--cluster", profile)
    assert done.returncode == 1
    assert done.stderr == (
        "xgen monitor: prometheus is not installed; write: make setup (Debian: apt-get install prometheus)\n"
    )
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--interval", "quickly"], "--interval: quickly is no duration; write e.g. 2s or 15d"),
        (
            ["--config", "/nowhere"],
            "xgen monitor: /nowhere/alertmanager.yml: No such file or directory; write --config",
        ),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, options: list[str], said: str) -> None:
    tool("prometheus-alertmanager")
    profile = write_profile(tmp_path / "cluster.yaml", tmp_path / "runs")
    done = monitor("up", tmp_path / "state", "--cluster", profile, "--no-exporter", *options)
    assert done.returncode in (1, 2)
    assert done.stderr.startswith(said) and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("alertmanager.yml", b"", "receivers: is no list of which each has name"),
        ("alertmanager.yml", b"receivers: [{webhook_configs: []}]", "receivers: is no list of which each has name"),
        ("alertmanager.yml", b"receivers: [\xff]", "is no YAML: 'utf-8' codec can't decode"),
        ("prometheus.yml", b"scrape_configs: 1", "scrape_configs: is no list of which each has job_name"),
    ],
)
def test_a_configuration_that_is_none_is_said_in_a_line(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    for program in ("prometheus", "prometheus-alertmanager"):
        tool(program)
    profile = write_profile(tmp_path / "cluster.yaml", tmp_path / "runs")
    shutil.copytree(MONITORING, tmp_path / "config")
    (tmp_path / "config" / name).write_bytes(content)
    ports = ["--port", str(free_port()), "--alertmanager-port", str(free_port())]
    options: list[str | Path] = ["--cluster", profile, "--no-exporter", "--config", tmp_path / "config", *ports]
    try:
        done = monitor("up", tmp_path / "state", *options)
        assert done.returncode == 1
        assert done.stderr.startswith(f"xgen monitor: {tmp_path}/config/{name}: {said}")
        assert len(done.stderr.splitlines()) == 1
    finally:
        monitor("down", tmp_path / "state")


def test_passwords_that_others_may_read_are_said_in_a_line(tmp_path: Path) -> None:
    tool("prometheus")
    tool("prometheus-alertmanager")
    users, profile = tmp_path / "users", write_profile(tmp_path / "cluster.yaml", tmp_path / "runs", free_port())
    users.write_text("prometheus:secret\n")
    users.chmod(0o644)
    content = yaml.safe_load(profile.read_text())
    content["metrics"]["basic_auth"] = {"file": str(users)}
    profile.write_text(yaml.safe_dump(content))
    state, ports = tmp_path / "state", ["--port", str(free_port()), "--alertmanager-port", str(free_port())]
    try:
        done = monitor("up", state, "--cluster", profile, "--no-exporter", *ports)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
        assert done.stderr.startswith("xgen monitor: cluster profile: metrics.basic_auth.file: ")
        assert f"write: chmod 600 {users}" in done.stderr
    finally:
        assert monitor("down", state, "--remove").returncode == 0


def test_status_of_what_was_never_started_is_down(tmp_path: Path) -> None:
    done = monitor("status", tmp_path / "state")
    assert done.returncode == 1
    assert [line.split()[0] for line in done.stdout.splitlines() if line.endswith("is down")] >= ["exporter"]
    assert not list(tmp_path.iterdir())
