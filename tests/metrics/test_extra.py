"""What a kind of training measures beside loss and rate, as Prometheus gets it."""

from __future__ import annotations

from prometheus_client.openmetrics.exposition import generate_latest as expose
from prometheus_client.registry import Collector, CollectorRegistry

from xgen.metrics.extra import EXTRAS, families


def test_a_name_with_its_labels_is_a_metric_and_an_unknown_one_is_left_out() -> None:
    told = {
        "rl_reward/math": 0.5,
        "rl_reward/code": 0.25,
        "rl_verifier_failures/code/timeout": 3,
        "train_preference_accuracy": 0.75,
        "rl_reward": 1.0,  # without its label
        "of_nobody": 2.0,
    }

    class Told(Collector):
        def collect(self):  # type: ignore[no-untyped-def]
            return families(told)

    registry = CollectorRegistry()
    registry.register(Told())
    lines = [line for line in expose(registry).decode().splitlines() if not line.startswith("#")]
    assert sorted(lines) == [
        'xgen_rl_reward{source="code"} 0.25',
        'xgen_rl_reward{source="math"} 0.5',
        'xgen_rl_verifier_failures_total{reason="timeout",verifier="code"} 3.0',
        "xgen_train_preference_accuracy 0.75",
    ]


def test_names_are_prometheus_own() -> None:
    assert all(name.replace("_", "").isalnum() and not name.endswith("_total") for name in EXTRAS)
