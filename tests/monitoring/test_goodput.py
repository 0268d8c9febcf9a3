"""Goodput and effective training time: PromQL over counters, and the ledger, say the same of runs that really ran."""

from __future__ import annotations

import json
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.metrics.fake_slurm import wait_for
from tests.metrics.fleet_runs import PRETRAIN, FleetRun
from tests.monitoring.conftest import DevPrometheus
from tests.monitoring.known import rules
from tests.monitoring.live import play_attempt
from xgen.metrics.exporter import App, Exporter, Targets
from xgen.metrics.fleet import Runs
from xgen.metrics.serve import Serving
from xgen.runs import Ledger, RunDir, read_events, replay

PREEMPTED, LOST = "tiny-k3f9ab", "lost-abc234"
_EXPR = {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}
RATIOS = {
    "run:xgen_run_effective_time:ratio": "xgen_run_effective_time_ratio",
    "run:xgen_run_goodput:ratio": "xgen_run_goodput_ratio",
}


@dataclass(frozen=True)
class Watched:
    """Two runs that have ended, and the Prometheus that has seen them while they ran."""

    url: str
    run_root: Path
    seconds: int

    def ask(self, query: str) -> dict[str, float]:
        """By run."""
        url = f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            found: list[Any] = json.load(answer)["data"]["result"]
        return {item["metric"]["run"]: float(item["value"][1]) for item in found}

    def ledger(self, run: str) -> Ledger:
        return replay(read_events(RunDir(self.run_root / run)))


@pytest.fixture(scope="module")
def watched(prometheus: DevPrometheus) -> Iterator[Watched]:
    root, began = prometheus.run_root, time.time()
    runs = Runs(root, "atlas", "main")
    runs.interval = 0.5
    targets = Targets(root / ".discovery")
    exporter = Exporter([runs], "1.2.3", log=pytest.fail)
    exporter.start()
    serving = Serving(App(exporter, targets), "127.0.0.1", name="web")
    target = [{"targets": [f"127.0.0.1:{serving.port}"], "labels": {"job_id": "exporter"}}]
    (root / ".discovery" / "exporter.json").write_text(json.dumps(target))
    preempted, lost = (FleetRun(root, name, PRETRAIN) for name in (PREEMPTED, LOST))
    for run in (preempted, lost):
        run.told(time.time(), "submitted", 0)
    watched = Watched(prometheus.url, root, 0)
    wait_for(lambda: watched.ask('xgen_run_state{state="queued"}').keys() == {PREEMPTED, LOST}, 30)
    second = threading.Thread(target=_play_lost, args=(lost,))
    second.start()
    play_attempt(preempted.dir, 1, first_step=1, steps=90, stage="broad", preempted=True)
    time.sleep(1.5)
    play_attempt(preempted.dir, 2, first_step=91, steps=60, stage="broad")
    second.join()
    try:
        wait_for(lambda: watched.ask('xgen_run_state{state="finished"}').keys() == {PREEMPTED, LOST}, 30)
        time.sleep(2)  # and the rules have seen that
        yield Watched(prometheus.url, root, int(time.time() - began))
    finally:
        serving.close()
        exporter.close()


def _play_lost(run: FleetRun) -> None:
    """An attempt dies without a word within its second half; what it had not saved is trained again."""
    for attempt, resumed, steps in ((1, 0, 80), (2, 40, 60)):
        run.told(time.time(), "started", attempt, stage="broad")
        time.sleep(0.5)
        run.told(time.time(), "restore_begin", attempt)
        time.sleep(0.3)
        run.told(time.time(), "restore_end", attempt, step=resumed)
        waited = 0.0
        for step in range(resumed + 1, resumed + steps + 1):
            time.sleep(0.1)
            waited += 0.03
            facts: dict[str, Any] = {} if step == resumed + 1 else {"data_wait": waited}
            if step == resumed + 1 or step % 10 == 0:
                run.told(time.time(), "progress" if facts else "first_step", attempt, step=step, **facts)
            if step == 40:
                run.told(time.time(), "checkpoint_begin", attempt, step=step)
                time.sleep(0.4)
                run.told(time.time(), "checkpoint_durable", attempt, step=step)
        time.sleep(2.0)
    run.told(time.time(), "finished", 2)


def test_the_records_are_the_ledgers_ratios_once_runs_have_ended(watched: Watched) -> None:
    for name in (PREEMPTED, LOST):
        ledger = watched.ledger(name)
        totals = ledger.totals(time.time())
        wall = sum(totals.values())
        assert 0.2 < ledger.ettr(time.time()) < 0.8
        expected = (totals["train"] / wall, totals["train"] / (wall - totals["queued"]))
        recorded = tuple(watched.ask(record)[name] for record in RATIOS)
        assert recorded == pytest.approx(expected, rel=0.01)
        assert tuple(watched.ask(metric)[name] for metric in RATIOS.values()) == pytest.approx(expected)


@pytest.mark.parametrize("record", RATIOS)
def test_at_no_scrape_do_they_differ_by_more_than_a_hundredth(watched: Watched, record: str) -> None:
    apart = f"abs(({_EXPR[record]}) / on (run) ({RATIOS[record]} > 0.05) - 1)"
    worst = watched.ask(f"max_over_time(({apart})[{watched.seconds}s:1s])")
    assert worst.keys() == {PREEMPTED, LOST}
    assert max(worst.values()) < 0.01
    # And there was something to compare, all along.
    assert min(watched.ask(f"max_over_time({RATIOS[record]}[{watched.seconds}s])").values()) > 0.2
    assert min(watched.ask(f"count_over_time({RATIOS[record]}[{watched.seconds}s])").values()) > 10


def test_no_counter_ever_falls(watched: Watched) -> None:
    for name in ("xgen_run_time_seconds_total", "xgen_run_gpu_seconds_total", "xgen_run_tokens_total"):
        assert set(watched.ask(f"sum by (run) (resets({name}[{watched.seconds}s]))").values()) == {0}


def test_the_trainers_own_ratio_is_the_ledgers_at_its_last_scrape(watched: Watched) -> None:
    last = f"max by (run, phase) (last_over_time(xgen_train_time_seconds_total[{watched.seconds}s]))"
    wall = watched.ask(f"sum by (run) ({last})")[PREEMPTED]
    train = watched.ask(last.replace("total[", 'total{phase="train"}['))[PREEMPTED]
    ledger, events = Ledger(), read_events(RunDir(watched.run_root / PREEMPTED))
    scraped = events[0].time + wall  # until then the run had not ended, so its phases sum to wall time
    for event in events:
        if event.time <= scraped:
            ledger.add(event)
    assert wall > 20
    assert train / wall == pytest.approx(ledger.ettr(scraped), rel=0.01)
