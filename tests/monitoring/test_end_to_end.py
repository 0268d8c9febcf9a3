"""A run that is preempted once, scraped by a real Prometheus that finds it by itself, and drawn."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.monitoring.conftest import MONITORING, DevPrometheus, run
from tests.monitoring.live import play_attempt
from xgen.runs import PHASES, EventWriter, Ledger, RunDir, read_events, replay


@dataclass(frozen=True)
class Watched:
    """A finished run of two attempts, and the Prometheus that has seen it."""

    prometheus: DevPrometheus
    run: RunDir
    start: float
    end: float

    def ask(self, path: str, **parameters: str) -> Any:
        url = f"{self.prometheus.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def draw(self, out: Path, *options: str | Path) -> subprocess.CompletedProcess[str]:
        window = ["--start", str(self.start), "--end", str(self.end)]
        where: list[str | Path] = ["--prometheus", self.prometheus.url, "--run", self.run.name, "--out", out]
        return run(sys.executable, MONITORING / "draw.py", *where, *window, *options)


@pytest.fixture(scope="module")
def watched(prometheus: DevPrometheus) -> Watched:
    start = time.time()
    run = RunDir(prometheus.run_root / "tiny-k3f9ab")
    run.create()
    EventWriter(run, "client", 0, "").write("submitted")
    # Prometheus takes up new files every 5 s; what is left of each attempt is seen.
    play_attempt(run, 1, first_step=1, steps=90, stage="broad", preempted=True)
    time.sleep(1.5)
    play_attempt(run, 2, first_step=91, steps=90, stage="anneal")
    return Watched(prometheus, run, start, time.time())


def test_both_attempts_are_found_by_their_file_and_end_in_order(watched: Watched) -> None:
    seen = watched.ask("query", query=f'count_over_time(up{{run="{watched.run.name}"}}[2m])')["result"]
    assert {item["metric"]["attempt"] for item in seen} == {"1", "2"}
    assert {item["metric"]["job_id"] for item in seen} == {"7"}
    assert not list(watched.run.discovery_file.parent.glob("*"))
    assert not [alert for alert in watched.ask("alerts")["alerts"] if "run" in alert["labels"]]


def test_phases_sum_to_wall_time_at_every_scrape_and_never_fall(watched: Watched) -> None:
    series = watched.ask("query", query="xgen_train_time_seconds_total[5m]")["result"]
    submitted = read_events(watched.run)[0].time
    scrapes: dict[tuple[str, float], float] = defaultdict(float)
    for item in series:
        values = [float(value) for _, value in item["values"]]
        assert values == sorted(values)
        for at, value in item["values"]:
            scrapes[item["metric"]["attempt"], at] += float(value)
    assert len(scrapes) > 5
    for (_, at), total in scrapes.items():
        assert total == pytest.approx(at - submitted, abs=0.2)


def test_effective_training_time_is_that_of_the_ledger(watched: Watched) -> None:
    dashboard = json.loads((MONITORING / "dashboards" / "run.json").read_text())
    [panel] = [p for p in dashboard["panels"] if p["title"] == "Effective training time"]
    query = panel["targets"][0]["expr"].replace("$run", watched.run.name)
    [attempt_2] = watched.ask("query", query='xgen_train_step{attempt="2"}[1m]')["result"]
    at = float(attempt_2["values"][-1][0])
    [answer] = watched.ask("query", query=query, time=str(at))["result"]
    ledger = Ledger()
    for event in read_events(watched.run):
        if event.time <= at:
            ledger.add(event)
    assert float(answer["value"][1]) == pytest.approx(ledger.ettr(at), rel=0.01)


def test_every_panel_has_data_and_is_drawn(watched: Watched, tmp_path: Path) -> None:
    done = watched.draw(tmp_path / "run.png")
    assert done.returncode == 0, done.stderr
    picture = (tmp_path / "run.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert int.from_bytes(picture[16:20], "big") == 1600
    assert len(picture) > 50_000


def test_what_only_some_runs_have_is_there_too(watched: Watched) -> None:
    """draw.py passes over these panels when they are empty."""
    dashboard = json.loads((MONITORING / "dashboards" / "run.json").read_text())
    queries = {p["title"]: p["targets"][0]["expr"].replace("$run", watched.run.name) for p in dashboard["panels"]}
    [event] = [event for event in read_events(watched.run) if event.event == "stopping"]
    for title, label, values in (("Stage", "stage", {"broad"}), ("Validation loss", "domain", {"web", "code"})):
        result = watched.ask("query", query=queries[title], time=str(event.time))["result"]
        assert {item["metric"][label] for item in result} == values, title


def test_every_annotation_is_drawn(watched: Watched, tmp_path: Path) -> None:
    dashboard = json.loads((MONITORING / "dashboards" / "run.json").read_text())
    dashboard["panels"] = [p for p in dashboard["panels"] if p["title"] == "Loss"]
    annotations = dashboard["annotations"]["list"]
    shown = {annotation["name"]: annotation["enable"] for annotation in annotations}
    assert shown == {"Attempts": True, "Stages": True, "Guard": True, "Restarts": True, "Saves": False}
    # Restarts are of the cluster's exporter, which is not there.
    names = [name for name in shown if name != "Restarts"]
    pictures = set()
    for without in ("", *names):
        kept = [annotation | {"enable": True} for annotation in annotations if annotation["name"] != without]
        (tmp_path / "some.json").write_text(json.dumps(dashboard | {"annotations": {"list": kept}}))
        done = watched.draw(tmp_path / "run.png", "--dashboard", tmp_path / "some.json")
        assert done.returncode == 0, done.stderr
        pictures.add((tmp_path / "run.png").read_bytes())
    assert len(pictures) == 1 + len(names)


def test_a_panel_without_data_or_with_an_error_is_named(watched: Watched, tmp_path: Path) -> None:
    dashboard = json.loads((MONITORING / "dashboards" / "run.json").read_text())
    dashboard["panels"] = [p for p in dashboard["panels"] if p["title"] in ("Restarts", "Loss", "Gradient norm")]
    text = json.dumps(dashboard)
    broken = text.replace("max(xgen_train_loss{", "max(xgen_train_lost{").replace(
        "max(xgen_train_grad_norm{", "max(max(xgen_train_grad_norm{"
    )
    (tmp_path / "broken.json").write_text(broken)
    done = watched.draw(tmp_path / "run.png", "--dashboard", tmp_path / "broken.json")
    assert done.returncode == 1
    faults = done.stderr.splitlines()
    assert len(faults) == 2
    assert faults[0] == "draw: panel 'Loss': no data for loss"
    assert faults[1].startswith("draw: panel 'Gradient norm': ")
    assert "parse error" in faults[1]
    assert (tmp_path / "run.png").exists()


def test_a_prometheus_that_is_not_there_is_said_in_one_line(watched: Watched, tmp_path: Path) -> None:
    done = watched.draw(tmp_path / "run.png", "--prometheus", "http://127.0.0.1:9")
    assert done.returncode == 1
    assert done.stderr.startswith("draw: http://127.0.0.1:9 does not answer")
    assert len(done.stderr.splitlines()) == 1


def test_the_ledger_of_the_run_agrees_with_what_was_played(watched: Watched) -> None:
    ledger = replay(read_events(watched.run))
    assert (ledger.restarts["preempted"], ledger.highest_step, ledger.durable_step) == (1, 180, 180)
    assert set(ledger.totals(watched.end)) == set(PHASES)
