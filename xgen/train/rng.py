"""The random state of one rank, in a file of its own: it belongs to a rank, not to a shard."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import torch


def seed_rng(seed: int) -> None:
    """Python's and NumPy's generators, from the run's seed: torchtitan seeds torch only."""
    random.seed(seed)
    np.random.seed(seed % 2**32)


def reseed_rng(seed: int, step: int, rank: int) -> None:
    """Where no state of this rank was saved: other ranks saved the checkpoint, or laid out otherwise.

    Python and NumPy are seeded from (seed, step, rank), torch from (seed, step) alike on all ranks, as torchtitan
    seeds it: ranks of a tensor-parallel group must draw the same numbers.
    """
    own, shared = (int(np.random.SeedSequence(key).generate_state(1)[0]) for key in ([seed, step, rank], [seed, step]))
    random.seed(own)
    np.random.seed(own)
    torch.manual_seed(shared)  # the GPU's too


def rng_bytes() -> bytes:
    """The state of Python, NumPy, torch and the rank's GPU, as the content of a file."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    assert kind == "MT19937"
    state = {
        "python": random.getstate(),
        "numpy": (torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }
    content = io.BytesIO()
    torch.save(state, content)
    return content.getvalue()


def load_rng(path: Path) -> None:
    state = torch.load(path, weights_only=True, map_location="cpu")
    random.setstate(state["python"])
    keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
