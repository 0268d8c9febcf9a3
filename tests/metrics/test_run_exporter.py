"""What Prometheus reads from rank 0."""

from __future__ import annotations

import math
import statistics
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from xgen.metrics import RunExporter, TrainingPlan
from xgen.runs import PHASES, RESTART_REASONS, EventWriter, Ledger, Refused, RunDir, read_events, replay

Samples = dict[tuple[str, str], float]  # (name, value of the only label or '') -> value


def scrape(port: int, host: str = "127.0.0.1") -> Samples:
    with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    samples: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            assert len(sample.labels) <= 1
            samples[sample.name, next(iter(sample.labels.values()), "")] = sample.value
    return samples


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "tiny-k3f9ab")
    run.create()
    EventWriter(run, "client", 0, "").write("submitted")
    return run


class Rank0:
    """An exporter as the trainer starts it, and its events."""

    def __init__(self, run: RunDir, attempt: int) -> None:
        EventWriter(run, "host", attempt, "7").write("started")
        self.ledger: Ledger = replay(read_events(run))
        self.events = EventWriter(run, "rank0", attempt, "7")
        self.events.subscribe(self.ledger)
        self.exporter = RunExporter(self.ledger)
        self.port = self.exporter.start()

    def train(self, first: int, last: int) -> None:
        self.exporter.resumed(first - 1)
        for step in range(first, last + 1):
            self.exporter.on_step(step, 2.5, 1.25, 3e-4, step * 1000, 0.3, 0.05)
        self.events.write(
            "first_step", step=first, startup={"imports": 4.0, "build": 1.0, "restore": 0.5, "first_step": 1}
        )
        self.events.write("progress", step=last)


@pytest.fixture
def rank0(run: RunDir) -> Iterator[Rank0]:
    rank0 = Rank0(run, attempt=1)
    yield rank0
    rank0.exporter.close()


def test_labelled_series_are_there_from_the_first_scrape_and_unknown_values_are_not(rank0: Rank0) -> None:
    samples = scrape(rank0.port)
    assert {label for name, label in samples if name == "xgen_train_time_seconds_total"} == set(PHASES)
    assert {label: v for (name, label), v in samples.items() if name == "xgen_train_restarts_total"} == dict.fromkeys(
        RESTART_REASONS, 0
    )
    # A curve must not dip to 0 when an attempt starts, and 1970 is no checkpoint's time.
    absent = ("loss", "step", "tokens_total", "checkpoint_durable_timestamp_seconds", "checkpoint_save_seconds")
    assert not {f"xgen_train_{name}" for name in absent} & {name for name, _ in samples}


def test_a_step_is_seen_with_its_numbers(rank0: Rank0) -> None:
    before = time.time()
    rank0.train(1, 10)
    samples = scrape(rank0.port)
    expected = {
        "step": 10,
        "loss": 2.5,
        "grad_norm": 1.25,
        "learning_rate": 3e-4,
        "tokens_total": 10_000,
        "data_wait_seconds_total": pytest.approx(0.5),
        "resumed_step": 0,
        "highest_step": 10,
        "checkpoint_durable_step": 0,
        "step_seconds_count": 10,
        "step_seconds_sum": pytest.approx(3.0),
    }
    assert {name: samples[f"xgen_train_{name}", ""] for name in expected} == expected
    assert samples["xgen_train_step_seconds_bucket", "0.2"] == 0
    assert samples["xgen_train_step_seconds_bucket", "0.35"] == 10
    assert before <= samples["xgen_train_last_step_timestamp_seconds", ""] <= time.time()


def test_what_it_sets_out_to_do_and_how_far_it_is_from_what_its_gpus_can(rank0: Rank0) -> None:
    consumed = {"web": 600, "code": 400}
    rank0.exporter.will_train(TrainingPlan(50_000, 0.12, lambda: {"allocated_peak": 7 << 30}, lambda: consumed))
    before = scrape(rank0.port)
    assert before["xgen_train_planned_tokens", ""] == 50_000
    assert before["xgen_train_memory_bytes", "allocated_peak"] == 7 << 30
    # Before the checkpoint is loaded it is not known how much was read, and before a step not how fast it is.
    assert not {"xgen_train_mixture_tokens_total", "xgen_train_mfu_ratio"} & {name for name, _ in before}
    rank0.train(1, 10)
    consumed |= {"web": 1200}
    samples = scrape(rank0.port)
    assert samples["xgen_train_mixture_tokens_total", "web"] == 1200
    assert samples["xgen_train_mixture_tokens_total", "code"] == 400
    assert samples["xgen_train_mfu_ratio", ""] == pytest.approx(0.12 / 0.3)


def test_without_a_gpu_there_is_no_share_of_its_peak(rank0: Rank0) -> None:
    rank0.exporter.will_train(TrainingPlan(50_000, None, lambda: {"rss": 1 << 30}, dict))
    rank0.train(1, 10)
    names = {name for name, _ in scrape(rank0.port)}
    assert "xgen_train_memory_bytes" in names
    assert not {"xgen_train_mfu_ratio", "xgen_train_mixture_tokens_total"} & names


def test_a_spike_is_the_loss_over_the_median_that_the_guard_has(rank0: Rank0) -> None:
    rank0.train(1, 10)
    assert "xgen_train_loss_spike_ratio" not in {name for name, _ in scrape(rank0.port)}
    rank0.exporter.on_step(11, 7.5, 1.25, 3e-4, 11_000, 0.3, 0.05, 2.5)
    assert scrape(rank0.port)["xgen_train_loss_spike_ratio", ""] == 3


def test_the_parts_of_the_start_are_seen_once_the_first_step_is_done(rank0: Rank0) -> None:
    assert "xgen_train_startup_seconds" not in {name for name, _ in scrape(rank0.port)}
    rank0.events.write("first_step", step=1, startup={"imports": 4.25, "build": 0.5})
    scraped = scrape(rank0.port).items()
    seen = {part: seconds for (name, part), seconds in scraped if name == "xgen_train_startup_seconds"}
    assert seen == {"imports": 4.25, "build": 0.5}


def test_a_loss_that_is_not_finite_is_exported_as_it_is(rank0: Rank0) -> None:
    rank0.exporter.on_step(1, math.nan, math.inf, 3e-4, 1000, 0.3, 0.0)
    samples = scrape(rank0.port)
    assert math.isnan(samples["xgen_train_loss", ""])
    assert math.isinf(samples["xgen_train_grad_norm", ""])


def test_a_checkpoint_is_seen_with_its_step_time_and_cost(rank0: Rank0) -> None:
    rank0.train(1, 10)
    rank0.events.write("checkpoint_begin", step=10)
    durable = rank0.events.write("checkpoint_durable", step=10, seconds=0.5)
    rank0.exporter.on_checkpoint(10, 0.5, durable.time)
    samples = scrape(rank0.port)
    assert samples["xgen_train_checkpoint_durable_step", ""] == 10
    assert samples["xgen_train_checkpoint_durable_timestamp_seconds", ""] == pytest.approx(durable.time)
    assert samples["xgen_train_checkpoint_save_seconds", ""] == 0.5


def test_exactly_one_phase_grows_and_they_sum_to_wall_time(run: RunDir, rank0: Rank0) -> None:
    submitted = read_events(run)[0].time
    for phase, change in (
        ("start", None),
        ("restore", "restore_begin"),
        ("start", "restore_end"),
        ("train", "first_step"),
        ("checkpoint", "checkpoint_begin"),
        ("train", "checkpoint_durable"),
        ("stop", "stopping"),
    ):
        if change:
            rank0.events.write(change, step=1)  # type: ignore[arg-type]
        first, began = scrape(rank0.port), time.time()
        time.sleep(0.05)
        second, now = scrape(rank0.port), time.time()
        grown = {label: second[name, label] - first[name, label] for name, label in first if "time_seconds" in name}
        assert {label for label, seconds in grown.items() if seconds} == {phase}
        assert grown[phase] == pytest.approx(now - began, abs=0.04)
        total = sum(value for (name, _), value in second.items() if name == "xgen_train_time_seconds_total")
        assert total == pytest.approx(now - submitted, abs=0.04)


def test_the_next_attempt_goes_on_where_the_one_before_ended(run: RunDir, rank0: Rank0) -> None:
    rank0.train(1, 10)
    rank0.events.write("checkpoint_begin", step=6)
    rank0.events.write("checkpoint_durable", step=6)
    first = scrape(rank0.port)
    rank0.exporter.close()
    EventWriter(run, "host", 1, "7").write("requeued", reason="crashed")
    later = Rank0(run, attempt=2)
    try:
        later.exporter.resumed(6)
        started = scrape(later.port)
        assert "xgen_train_tokens_total" not in {name for name, _ in started}  # no jump that looks like throughput
        later.train(7, 8)
        second = scrape(later.port)
    finally:
        later.exporter.close()
    name = "xgen_train_time_seconds_total"
    assert all(second[name, phase] >= first[name, phase] for phase in PHASES)
    assert second["xgen_train_restarts_total", "crashed"] == 1
    assert second["xgen_train_resumed_step", ""] == second["xgen_train_checkpoint_durable_step", ""] == 6
    assert (second["xgen_train_step", ""], second["xgen_train_highest_step", ""]) == (8, 10)


def test_a_step_costs_less_than_50_microseconds(rank0: Rank0) -> None:
    costs = []
    for step in range(1, 2000):
        began = time.perf_counter()
        rank0.exporter.on_step(step, 2.5, 1.25, 3e-4, step * 1000, 0.3, 0.05)
        costs.append(time.perf_counter() - began)
    assert statistics.median(costs) < 50e-6


def test_a_run_has_no_more_series_than_the_documentation_says(rank0: Rank0) -> None:
    memory = {"allocated_peak": 1, "reserved_peak": 2}
    rank0.exporter.will_train(TrainingPlan(50_000, 0.12, lambda: memory, lambda: {"web": 1}))
    rank0.train(1, 1)
    rank0.exporter.on_step(2, 2.5, 1.25, 3e-4, 2000, 0.3, 0.05, 2.5)
    rank0.events.write("checkpoint_durable", step=1)
    rank0.exporter.on_checkpoint(1, 0.5, time.time())
    samples = scrape(rank0.port)
    assert len(samples) == 66  # 67 in a stage that has a name; one for each further component of the mixture
    assert not [name for name, _ in samples if name.endswith("_created")]


def test_closing_ends_the_thread_and_frees_the_port(rank0: Rank0) -> None:
    assert "exporter" in {thread.name for thread in threading.enumerate()}
    rank0.exporter.close()
    rank0.exporter.close()
    assert "exporter" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(OSError, match="refused"):
        scrape(rank0.port)


def test_a_client_that_says_nothing_blocks_neither_a_scrape_nor_the_end(rank0: Rank0) -> None:
    import socket

    with socket.create_connection(("127.0.0.1", rank0.port), timeout=5):
        assert scrape(rank0.port)
        began = time.monotonic()
        rank0.exporter.close()
        assert time.monotonic() - began < 2


def test_an_address_that_the_node_does_not_have_is_refused_with_the_key_to_change() -> None:
    with pytest.raises(Refused, match=r"metrics\.address: '192\.0\.2\.1'.*write an address that every node has"):
        RunExporter(Ledger(), "192.0.2.1").start()


def test_nothing_is_left_in_the_global_registry(rank0: Rank0) -> None:
    del rank0
    assert not [family.name for family in REGISTRY.collect() if family.name.startswith("xgen_")]
