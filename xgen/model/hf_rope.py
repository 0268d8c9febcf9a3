"""How a Hugging Face model turns positions, by its config.json: as transformers 5 writes it, and as it was before."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from xgen.model.hf import HuggingFaceError
from xgen.spec import RopeScaling

_DEFAULT_THETA = 10_000.0  # transformers' for both architectures
_KNOWN = {
    "rope_theta", "rope_type", "type", "factor", "original_max_position_embeddings", "attention_factor", "beta_fast",
    "beta_slow",
}  # fmt: skip


@dataclass(frozen=True)
class Positions:
    """`seq_len`: tokens that the model is made for."""

    seq_len: int
    rope_theta: float
    rope_scaling: RopeScaling | None


def read_positions(folder: Path) -> Positions:
    """Of a folder that HuggingFaceWeights has opened. Raises HuggingFaceError for what our models do not do."""
    file = folder / "config.json"
    config: dict[str, Any] = json.loads(file.read_bytes())
    rope = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    theta = float(rope.get("rope_theta") or config.get("rope_theta") or _DEFAULT_THETA)
    seq_len = int(config.get("max_position_embeddings") or 2048)  # transformers' default
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return Positions(seq_len, theta, None)
    if kind != "yarn":
        raise HuggingFaceError(file, f"rope_type is {kind!r}, and our models have default or yarn", "name another")
    return Positions(seq_len, theta, _yarn(file, rope, seq_len))


def _yarn(file: Path, rope: Mapping[str, Any], seq_len: int) -> RopeScaling:
    given = {key: value for key, value in rope.items() if value is not None and (key, value) != ("truncate", True)}
    if unknown := sorted(given.keys() - _KNOWN):
        raise HuggingFaceError(file, f"{unknown[0]} of YaRN is {rope[unknown[0]]!r}, and ours has none", "name another")
    try:
        scaling = RopeScaling(
            factor=rope["factor"],
            original=rope.get("original_max_position_embeddings") or seq_len,
            beta_fast=rope.get("beta_fast") or 32,
            beta_slow=rope.get("beta_slow") or 1,
        )
    except (KeyError, ValidationError) as error:
        said = f"YaRN has no {error}" if isinstance(error, KeyError) else error.errors()[0]["msg"]
        raise HuggingFaceError(file, said, "take the config.json that belongs to the weights") from None
    # Absent is what transformers takes for absent.
    attention = rope.get("attention_factor") or 0.1 * math.log(scaling.factor) + 1
    if attention != 1:
        what = f"attention_factor of YaRN is {attention:.4g}, and our models have 1"
        raise HuggingFaceError(file, what, "name another, or score it by `harness` alone")
    return scaling
