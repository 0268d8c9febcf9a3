"""One table of rotary embeddings for all layers: torchtitan makes one a layer, 5.1 GB of them for the 9B at 256k."""

from __future__ import annotations

import torch
from torchtitan.models.common.rope import RoPE


def share_rope_tables(model: torch.nn.Module) -> None:
    """To be called once the tables are computed: torchtitan computes those of every layer anew on the device."""
    first, *others = (module for module in model.modules() if isinstance(module, RoPE))
    for rope in others:
        assert rope.config == first.config, "a layer of its own kind"
        rope.cache = first.cache
