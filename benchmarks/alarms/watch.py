"""Exporter, Prometheus and Alertmanager with the repository's own files in fast motion, and what they tell."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmarks.alarms import FACTOR
from benchmarks.common import ROOT, free_port

MONITORING = ROOT / "monitoring"
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = r"(\d+)([smhd])"
# Where durations stand: in rules ranges, offsets, `for` and a forecast; in the routes the pauses; in the dashboards
# the least step of a panel.
_PLACES = {
    "rules/*.yml": (rf"(\[){_DURATION}(?=\])", rf"(offset ){_DURATION}", rf"(for: ){_DURATION}"),
    "dashboards/*.json": (rf'("interval": "){_DURATION}(?=")',),
    "alertmanager.yml": (rf"((?:group_wait|group_interval|repeat_interval): ){_DURATION}",),
}
_SUMS = {
    "rules/limits.yml": r'("xgen:\w+_seconds:limit", expr: )([\d* ]+)',
    "rules/cluster.yml": r"(predict_linear\(.*, )(\d+ \* 3600)",
}


class LabError(Exception):
    """What did not happen, or is not there."""


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """What the condition says, once that is something. Raises LabError."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > until:
            raise LabError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.2)
    return found


def in_fast_motion(folder: Path) -> Path:
    """A copy of monitoring/ whose durations are FACTOR times as short."""
    shutil.copytree(MONITORING, folder, ignore=shutil.ignore_patterns("__pycache__"))

    def shorter(match: re.Match[str]) -> str:
        return f"{match[1]}{round(int(match[2]) * _SECONDS[match[3]] * 1000 / FACTOR)}ms"

    for names, places in _PLACES.items():
        for file in folder.glob(names):
            for place in places:
                file.write_text(re.sub(place, shorter, file.read_text()))
    for name, place in _SUMS.items():
        text, number = re.subn(place, rf"\1(\2) / {FACTOR}", (folder / name).read_text())
        if not number:
            raise LabError(f"monitoring/{name} has no {place}")
        (folder / name).write_text(text)
    return folder


@dataclass(frozen=True)
class Told:
    """One alert, as it came to the webhook."""

    name: str
    labels: Mapping[str, str]
    status: str  # firing or resolved
    time: float

    def is_about(self, alert: str, labels: Mapping[str, str]) -> bool:
        return self.name == alert and labels.items() <= self.labels.items()


@dataclass
class Watch:
    """All that watches. `profile` is that of the cluster."""

    folder: Path
    profile: Path
    path: str  # PATH of the exporter
    told: list[Told] = field(default_factory=list)
    prometheus: str = ""
    exporter: subprocess.Popen[bytes] | None = None
    _server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        hook = self._listen()
        self.start_exporter()
        ports = {"--port": free_port(), "--alertmanager-port": free_port()}
        self.prometheus = f"http://127.0.0.1:{ports['--port']}"
        options = ["--cluster", self.profile, "--config", in_fast_motion(self.folder / "monitoring"), "--webhook", hook]
        self._monitor("up", *options, "--no-exporter", "--interval", "1s", *(x for pair in ports.items() for x in pair))

    def start_exporter(self) -> None:
        command = [sys.executable, "-m", "benchmarks.alarms.exporter", "--cluster", str(self.profile)]
        environment = {**os.environ, "PATH": self.path}
        with (self.folder / "exporter.log").open("ab") as log:
            self.exporter = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def kill_exporter(self) -> None:
        if self.exporter is not None:
            os.killpg(self.exporter.pid, signal.SIGKILL)
            self.exporter.wait()
            self.exporter = None

    def close(self) -> None:
        self.kill_exporter()
        if self._server is not None:
            self._monitor("down", "--remove")
            self._server.shutdown()
            self._server.server_close()

    def _monitor(self, action: str, *options: object) -> None:
        command = [sys.executable, "-m", "xgen.cli.main", "monitor", action, "--state", self.folder / "state", *options]
        done = subprocess.run(
            list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
        )
        if done.returncode:
            raise LabError(f"xgen monitor {action}: {done.stderr}")

    def _listen(self) -> str:
        told = self.told

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                for alert in body["alerts"]:
                    labels = alert["labels"]
                    told.append(Told(labels["alertname"], labels, alert["status"], time.time()))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_port}/alerts"

    def about(self, alert: str, labels: Mapping[str, str], status: str, since: float = 0) -> Told | None:
        """The first that arrived."""
        found = (one for one in list(self.told) if one.is_about(alert, labels) and one.status == status)
        return next((one for one in found if one.time >= since), None)

    def ask(self, path: str, **parameters: object) -> list[Any]:
        url = f"{self.prometheus}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=20) as answer:
            found: list[Any] = json.load(answer)["data"]["result"]
        return found

    def value(self, query: str, at: float) -> float | None:
        found = self.ask("query", query=query, time=at)
        return float(found[0]["value"][1]) if found else None

    def panel(self, uid: str, title: str, run: str, start: float) -> list[tuple[Mapping[str, str], float]]:
        """All that a panel showed since `start`: labels and value of each sample."""
        seen = []
        for expr in panel_queries(uid, title):
            query = re.sub(r"\$\{?(\w+)\}?", lambda m: _variable(m[1], run), expr)
            for series in self.ask("query_range", query=query, start=start, end=time.time(), step=1):
                seen += [(series["metric"], float(value)) for _, value in series["values"]]
        return seen


def panel_queries(uid: str, title: str) -> list[str]:
    dashboard = json.loads((MONITORING / "dashboards" / f"{uid.removeprefix('xgen-')}.json").read_text())
    for panel in dashboard["panels"]:
        if panel["title"] == title:
            return [target["expr"] for target in panel["targets"]]
    raise LabError(f"{uid} has no panel {title!r}")


def _variable(name: str, run: str) -> str:
    """As Grafana fills it in; what stands in a regular expression of ours ($1) stays."""
    known = {"__rate_interval": "4s", "__interval": "1s", "__range": "15m", "run": run}
    return f"${name}" if name.isdigit() else known.get(name, ".*")
