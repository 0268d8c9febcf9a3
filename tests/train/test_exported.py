"""What a real training tells Prometheus beyond its steps: plan, memory, and what it has really read."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.train.forked import Training
from xgen.data import PackedSamples, samples_of
from xgen.runs import RunDir
from xgen.spec import Pretrain, load_resolved

Samples = dict[tuple[str, str], float]  # (name, value of the only label or '')


def watch(run: RunDir, until: int) -> Callable[[list[int]], None]:
    """Scrape as Prometheus does, until step `until` was seen; what was seen last is left in `scrape.json`."""

    def during(pids: list[int]) -> None:
        seen: list[tuple[str, str, float]] = []
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                [target] = json.loads(run.discovery_file.read_text())
                with urllib.request.urlopen(f"http://{target['targets'][0]}/metrics", timeout=5) as answer:
                    families = text_string_to_metric_families(answer.read().decode())
                found = [s for family in families for s in family.samples]
            except (OSError, ValueError):  # it has not begun, or has ended
                time.sleep(0.005)
                continue
            seen = [(s.name, next(iter(s.labels.values()), ""), s.value) for s in found]
            if any(s.name == "xgen_train_step" and s.value >= until for s in found):
                break
            time.sleep(0.02)  # leave the ranks some of the machine
        (run.path / "scrape.json").write_text(json.dumps(seen))

    return during


def scraped(run: RunDir) -> Samples:
    return {(name, label): value for name, label, value in json.loads((run.path / "scrape.json").read_text())}


def test_a_training_tells_its_plan_its_memory_and_what_it_has_read(_warm: None, tmp_path: Path) -> None:
    training = Training(RunDir(tmp_path / "nano-k3f9ab"))
    stage = yaml.safe_load(training.run.spec_file.read_text())["stages"][0] | {"tokens": 60 * 256}
    training.change("stages", [stage])
    training.change("data", "mixtures", {"broad": {"code": 0.5, "reference": 0.3, "literature": 0.2}})
    training.change("guard", {"window": 20})
    training.go(watch(training.run, 40))
    samples, job = scraped(training.run), load_resolved(training.run.spec_file)
    assert isinstance(job, Pretrain)
    assert samples["xgen_train_planned_tokens", ""] == 60 * 256
    assert samples["xgen_train_memory_bytes", "rss"] > 50e6
    assert not [name for name, _ in samples if name == "xgen_train_mfu_ratio"]  # there is no GPU here
    assert 0.5 < samples["xgen_train_loss_spike_ratio", ""] < 1.5
    read = {domain: tokens for (name, domain), tokens in samples.items() if name == "xgen_train_mixture_tokens_total"}
    steps = sum(read.values()) / 256
    step = samples["xgen_train_step", ""]
    assert step <= steps <= step + 2  # the one under way, and one that began while it was scraped
    order = samples_of(job)
    assert isinstance(order, PackedSamples)
    assert read == order.taken(int(steps) * 4)
