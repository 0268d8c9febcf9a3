"""Losses of two trainings: a real difference is called one, noise is called noise."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.evals.made import make_training, training
from xgen.evals.compare.curves import Curve, read_curve
from xgen.evals.compare.losses import at_equal_steps, at_equal_tokens, final_loss, same_batches, tokens_until
from xgen.evals.compare.trained import _losses


def curve(losses: np.ndarray, batch: int = 1000) -> Curve:
    steps = np.arange(1, len(losses) + 1)
    return Curve(steps, batch * steps.astype(float), losses, np.full(len(losses), 100.0))


def falling(tokens: np.ndarray) -> np.ndarray:
    return 2.0 + 3.0 * np.exp(-tokens / 2e5)


def noise(seed: int, length: int = 600, scale: float = 0.05) -> np.ndarray:
    """Neighbours are alike, as in a training whose data is of one kind for a while."""
    rng = np.random.default_rng(seed)
    white, found, last = rng.normal(0, scale, length), np.empty(length), 0.0
    for at in range(length):
        last = 0.6 * last + white[at]
        found[at] = last
    return found


TREND = falling(1000.0 * np.arange(1, 601))


def test_two_seeds_of_one_training_are_called_alike_as_often_as_the_level_says() -> None:
    real = 0
    for seed in range(150):
        tests = list(_losses(curve(TREND + noise(seed)), curve(TREND + noise(1000 + seed)), 0.95))
        assert [one.equal for one in tests] == ["steps and tokens"]
        real += tests[0].verdict != "no real difference"
    assert real <= 15  # 5% of 150 are 7.5


@pytest.mark.parametrize(("gain", "verdict"), [(-0.2, "better"), (0.2, "worse")])
def test_a_planted_difference_is_real(gain: float, verdict: str) -> None:
    found = [
        next(iter(_losses(curve(TREND + noise(seed)), curve(TREND + gain + noise(1000 + seed)), 0.95)))
        for seed in range(20)
    ]
    assert sum(one.verdict == verdict for one in found) >= 18
    assert sum(one.test.low <= gain <= one.test.high for one in found) >= 16


def test_equal_tokens_are_other_steps_where_the_batches_differ() -> None:
    small = curve(falling(1000.0 * np.arange(1, 601)))
    large = curve(falling(2000.0 * np.arange(1, 301)), batch=2000)
    assert not same_batches(small, large)
    by_tokens, by_steps = at_equal_tokens(small, large), at_equal_steps(small, large)
    assert by_tokens and by_steps
    assert by_tokens.at == 600_000 and by_steps.at == 300
    assert abs(by_tokens.difference.mean) < 0.01
    assert by_steps.difference.mean < -0.1


def test_tokens_to_the_loss_of_the_other() -> None:
    slow, fast = curve(falling(1000.0 * np.arange(1, 601))), curve(falling(2000.0 * np.arange(1, 601)))
    final = final_loss(slow)
    assert final is not None
    reached = tokens_until(fast, final)
    assert reached is not None and 270_000 <= reached <= 330_000
    assert tokens_until(slow, 1.0) is None


def test_few_steps_in_common_are_no_comparison() -> None:
    assert at_equal_steps(curve(TREND[:7]), curve(TREND)) is None
    assert at_equal_tokens(curve(TREND[:7]), curve(TREND)) is None


def test_steps_that_were_trained_again_count_once_and_torn_lines_do_not(tmp_path: Path) -> None:
    run = make_training(tmp_path, "train-aaaaaa", training(), [5.0, 4.0, 3.0])
    again = {"step": 3, "loss": 2.5, "tokens": 3072, "seconds": 0.25}
    bad = {"step": 4, "loss": None, "tokens": 4096, "seconds": 0.25}
    with (run.metrics_dir / "steps.jsonl").open("a") as file:
        file.write(json.dumps(again) + "\n" + json.dumps(bad) + "\n" + '{"step": 5, "lo')
    found = read_curve(run)
    assert (found.steps.tolist(), found.losses.tolist()) == ([1, 2, 3], [5.0, 4.0, 2.5])
    assert found.tokens_per_second == pytest.approx((1024 / 0.5 + 1024 / 0.25) / 2)
    assert len(found.until(2)) == 2


def test_a_run_without_steps_has_an_empty_curve(tmp_path: Path) -> None:
    run = make_training(tmp_path, "train-aaaaaa", training(), [])
    assert len(read_curve(run)) == 0
    (run.metrics_dir / "steps.jsonl").unlink()
    assert len(read_curve(run)) == 0
