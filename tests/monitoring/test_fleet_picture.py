"""Every dashboard is drawn of a made-up cluster, and every fault that is planted in it is where a person would look."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.monitoring.conftest import MONITORING, free_port, run, tool
from tests.monitoring.fleet import Fleet
from tests.monitoring.fleet_scores import KNOWLEDGE, SCORED, ruler
from tests.monitoring.known import known
from tests.monitoring.names import variables_in
from tests.monitoring.test_dashboards import DASHBOARDS, organized

_HOURS, _EVERY = 2, 30
_RUNS = "xgen-4b-k3f9ab|xgen-4b-q8w2xz"
_CHOSEN = {
    "run": "--run=xgen-4b-k3f9ab", "compare": f"--variable=run={_RUNS}", "posttrain": "--run=rl-math-g7h8i9",
}  # fmt: skip
_CONFIG = "{global: {scrape_interval: 30s}, scrape_configs: [{job_name: xgen-runs}]}"


@dataclass(frozen=True)
class Filled:
    """A Prometheus that knows a fleet's last hours."""

    url: str
    fleet: Fleet
    start: int
    end: int

    def ask(self, name: str, title: str, target: int = 0) -> list[tuple[dict[str, str], float]]:
        """What a panel's query says at the end of the time."""
        [panel] = [panel for panel in DASHBOARDS[name]["panels"] if panel["title"] == title]
        query = panel["targets"][target]["expr"].replace("$__range", f"{_HOURS}h").replace("$__rate_interval", "2m")
        for variable in variables_in(query):
            query = query.replace(f"${variable}", _RUNS if name == "compare" else ".*")
        parameters = urllib.parse.urlencode({"query": query, "time": self.end})
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{parameters}", timeout=30) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return [(item["metric"], float(item["value"][1])) for item in found]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    folder, port = tmp_path_factory.mktemp("fleet"), free_port()
    end = int(time.time()) // _EVERY * _EVERY
    start = end - _HOURS * 3600
    fleet = Fleet(start, end, _EVERY)
    fleet.write(folder / "fleet.txt")
    done = run(tool("promtool"), "tsdb", "create-blocks-from", "openmetrics", folder / "fleet.txt", folder / "data")
    assert done.returncode == 0, done.stderr
    (folder / "prometheus.yml").write_text(_CONFIG)
    url = f"http://127.0.0.1:{port}"
    with _prometheus(folder, port):
        # What the rules record, of all these hours; it is seen when Prometheus starts anew.
        window = [f"--start={start}", f"--end={end}", f"--url={url}", f"--output-dir={folder}/data"]
        rules = sorted((MONITORING / "rules").glob("*.yml"))
        done = run(tool("promtool"), "tsdb", "create-blocks-from", "rules", *window, "--eval-interval=60s", *rules)
        assert done.returncode == 0, done.stderr
    with _prometheus(folder, port):
        yield Filled(url, fleet, start, end)


@contextmanager
def _prometheus(folder: Path, port: int) -> Iterator[None]:
    options = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    options.append("--query.lookback-delta=75s")  # a series that ends has no mark of its end here
    with (folder / "log").open("w") as log:
        command = [tool("prometheus"), *options, f"--web.listen-address=127.0.0.1:{port}"]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait_for(f"http://127.0.0.1:{port}/-/ready")
        yield
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(url: str) -> None:
    for _ in range(100):
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"{url} does not answer")


def draw(filled: Filled, dashboard: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    where = ["--prometheus", filled.url, "--start", str(filled.start), "--end", str(filled.end)]
    what: list[str | Path] = ["--dashboard", dashboard, "--out", out]
    return run(sys.executable, MONITORING / "draw.py", *where, *what, *options)


def test_the_cluster_has_no_series_that_is_not_promised(filled: Filled) -> None:
    labels_of = known()
    for name, labels in filled.fleet.series:
        assert {key for key, _ in labels} <= labels_of[name], name


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_panel_has_data_and_is_drawn(filled: Filled, name: str, tmp_path: Path) -> None:
    options = filter(None, [_CHOSEN.get(name)])
    done = draw(filled, MONITORING / "dashboards" / f"{name}.json", tmp_path / "it.png", *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "it.png").read_bytes().startswith(b"\x89PNG")


def test_a_count_of_one_sample_is_seen(filled: Filled, tmp_path: Path) -> None:
    """As jobs end: in one step there are some, and none before and after."""
    dashboard = json.loads((MONITORING / "dashboards" / "fleet.json").read_text())
    [panel] = [one for one in dashboard["panels"] if one["title"] == "Jobs that ended"]
    middle = filled.start + _HOURS * 1800
    once = f"vector(3) and on () vector(time()) > {middle} <= {middle + 600}"
    panel["targets"][0]["expr"] = f'label_replace({once}, "state", "completed", "", "")'
    (tmp_path / "one.json").write_text(json.dumps(dashboard | {"panels": [panel], "annotations": {"list": []}}))
    done = draw(filled, tmp_path / "one.json", tmp_path / "one.png")
    assert (done.returncode, done.stderr) == (0, "")
    pixels = np.asarray(Image.open(tmp_path / "one.png").convert("RGB"), int)
    red, green, blue = (pixels[:, :, channel] for channel in range(3))
    assert np.sum((green > 100) & (green > 1.2 * np.maximum(red, blue))) > 1000


@pytest.mark.parametrize(
    ("name", "title", "number"),
    [
        ("fleet", "Alerts", 6),
        ("fleet", "Running", 4),
        ("fleet", "Waiting", 1),
        ("fleet", "GPUs held, idle", 8),
        ("nodes", "Nodes drained", 1),
        ("nodes", "Nodes in use", 7),
        ("nodes", "GPUs with an XID", 1),
        ("pipeline", "Failed", 1),
        ("pipeline", "Lost", 1),
        ("exporter", "Collectors that fail", 1),
        ("exporter", "Silent trainers", 0),
    ],
)
def test_a_number(filled: Filled, name: str, title: str, number: float) -> None:
    assert [value for _, value in filled.ask(name, title)] == [number]


def test_each_fault_is_named_in_its_table(filled: Filled) -> None:
    alerts = {labels["alertname"] for labels, _ in filled.ask("fleet", "What is wrong now")}
    assert alerts >= {"XgenRunLost", "XgenGpuXid", "XgenNodeFlapping", "XgenExporterBlind"}
    states = {labels["run"]: labels["state"] for labels, _ in filled.ask("fleet", "Runs")}
    assert (states["ruler-9b-u7v8w9"], states["dpo-tools-d4e5f6"]) == ("lost", "failed")
    assert "sft-tools-a1b2c3" not in states  # it finished
    [(drained, _)] = filled.ask("nodes", "Nodes out of use")
    assert drained == {"node": "g07", "status": "drained", "reason": "health: GPU 3 ECC"}
    gpus = {(labels["hostname"], labels["run"]) for labels, _ in filled.ask("nodes", "GPUs to look at")}
    assert gpus == {("g05", "xgen-4b-q8w2xz"), ("g10", "rl-math-g7h8i9")}
    assert [labels["node"] for labels, _ in filled.ask("nodes", "Nodes that change most")] == ["g11"]


def test_goodput_is_what_the_runs_spent(filled: Filled) -> None:
    runs = [(run, max(run.gpus, 1)) for run in filled.fleet.runs]
    trained = sum((run.spent["train"] + run.spent["work"]) * gpus for run, gpus in runs)
    held = sum((sum(run.spent.values()) - run.spent["queued"]) * gpus for run, gpus in runs)
    [(_, goodput)] = filled.ask("fleet", "Goodput")
    assert goodput == pytest.approx(trained / held, rel=0.02)
    [(_, lost)] = filled.ask("fleet", "GPU-hours lost")
    # The record is a rate over five minutes: it begins that much later than the runs do.
    assert lost == pytest.approx((held - trained) / 3600, rel=0.1)


def test_the_slowest_run_says_how_long_it_all_takes(filled: Filled) -> None:
    """One that makes no step at all has no time of its own: it is among what is wrong."""
    steps_left = {run.name: (run.planned - run.step) * _HOURS * 3600 / run.steps for run in filled.fleet.runs}
    [(_, seconds)] = filled.ask("pipeline", "Until all are done")
    assert seconds == pytest.approx(max(steps_left[name] for name in _RUNS.split("|")), rel=0.05)


def test_losses_are_compared_after_the_same_number_of_tokens(filled: Filled) -> None:
    shortest = min(run.step for run in filled.fleet.runs if run.name in _RUNS)
    for part in (0.25, 0.5, 0.75, 1):
        found = _column(filled, "compare", "Side by side", f"Loss at {part:.0%}")
        for fake in filled.fleet.runs:
            if fake.name in _RUNS:
                expected = fake.loss + 7 * math.exp(-shortest * part / 300)
                assert found[fake.name] == pytest.approx(expected, abs=0.15), (fake.name, part)


def _column(filled: Filled, name: str, title: str, column: str) -> dict[str, float]:
    """By run."""
    [panel] = [panel for panel in DASHBOARDS[name]["panels"] if panel["title"] == title]
    fields = {text: field for field, text in organized(panel)["renameByName"].items()}
    target = ord(fields[column].removeprefix("Value #")) - ord("A")
    return {labels["run"]: value for labels, value in filled.ask(name, title, target)}


def test_scores_stand_at_the_runs_that_they_are_of(filled: Filled) -> None:
    steps = _column(filled, "compare", "What they score", "Step scored")
    assert set(steps) == set(_RUNS.split("|"))
    for length in (4096, 262144):
        found = _column(filled, "compare", "What they score", f"{length // 1024}k")
        for target, best in SCORED.values():
            assert found[target] == pytest.approx(ruler(int(steps[target]), best, length))
    of_all = _column(filled, "compare", "What they score", "RULER")
    shown = _column(filled, "pipeline", "Runs", "RULER")
    for evaluation, (target, best) in SCORED.items():  # of the lost one, too, what it had found
        assert of_all[target] == pytest.approx(ruler(int(steps[target]), best, 4096 << 3))  # the middle of seven
        assert shown[target] == shown[evaluation] == pytest.approx(of_all[target])
    assert set(shown) == set(steps) | set(SCORED)
    by_length = {
        (labels["run"], labels["suite"], labels["length"]): value
        for labels, value in filled.ask("compare", "By length", 1)
    }
    assert len(by_length) == 2 * 3 * 7
    for target, best in SCORED.values():
        assert by_length[target, "ruler", "8192"] == pytest.approx(ruler(int(steps[target]), best, 8192))
    tasks = {labels["task"] for labels, _ in filled.ask("compare", "Knowledge and reasoning", 1)}
    assert tasks == set(KNOWLEDGE)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("compare", [], "draw: xgen compare shows no run of its own; write --variable run=NAME"),
        ("fleet", ["--run=tiny"], "draw: xgen fleet has no variable run; it has exporter, project, user"),
        ("fleet", ["--variable=user=nobody"], "draw: panel 'Goodput': no data for goodput"),
    ],
)
def test_what_cannot_be_drawn_is_said(filled: Filled, name: str, options: list[str], says: str, tmp_path: Path) -> None:
    done = draw(filled, MONITORING / "dashboards" / f"{name}.json", tmp_path / "it.png", *options)
    assert done.returncode == 1
    assert says in done.stderr.splitlines()


def test_a_column_without_data_is_named(filled: Filled, tmp_path: Path) -> None:
    text = (MONITORING / "dashboards" / "pipeline.json").read_text()
    (tmp_path / "broken.json").write_text(text.replace("xgen_run_restarts_total", "xgen_run_starts_total"))
    done = draw(filled, tmp_path / "broken.json", tmp_path / "it.png")
    assert done.stderr == "draw: panel 'Runs': no data for Restarts\n"
