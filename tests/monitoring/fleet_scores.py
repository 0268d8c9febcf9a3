"""What evaluations would find of the runs of the made-up cluster."""

from __future__ import annotations

import math
from collections.abc import Iterator

# Which run each evaluation scores, and what RULER says of it at 4k when it has learnt.
SCORED = {"ruler-9b-u7v8w9": ("xgen-4b-q8w2xz", 0.8), "scores-4b-p2q3r4": ("xgen-4b-k3f9ab", 0.95)}
KNOWLEDGE = {"arc_challenge": 0.6, "hellaswag": 0.8, "gsm8k": 0.5}
EVERY = 500  # steps between the checkpoints that are scored


def scored_step(step: float) -> int:
    """A checkpoint behind the training; 0: none yet."""
    return max(0, int(step) // EVERY - 1) * EVERY


def ruler(step: int, best: float, length: int) -> float:
    return best * _learnt(step) - 0.04 * math.log2(length / 4096)


def scores(step: int, best: float, loss: float) -> Iterator[tuple[str, float, dict[str, str]]]:
    """Names, values and labels; `loss` is that of the training in the end."""
    yield "step", step, {}
    lengths = [4096 << doubled for doubled in range(7)]
    yield "effective_length_tokens", max((one for one in lengths if ruler(step, best, one) >= 0.856), default=0), {}
    yield "loss_nats", loss + 2 * math.exp(-step / 1500), {"task": "books", "length": "65536"}
    for doubled, length in enumerate(lengths):
        for task in ("average", "vt", "niah_single_1"):
            yield "score", ruler(step, best, length), {"suite": "ruler", "task": task, "length": str(length)}
        for suite in ("needles", "recall"):
            yield "score", _learnt(step) - 0.1 * doubled, {"suite": suite, "task": suite, "length": str(length)}
    for task, most in KNOWLEDGE.items():
        yield "score", most * _learnt(step), {"suite": "harness", "task": task}


def _learnt(step: int) -> float:
    return 1 - math.exp(-step / 1500)
