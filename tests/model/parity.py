"""Our models as torchtitan builds them, in one process on the CPU, beside transformers' of the same weights."""

from __future__ import annotations

from typing import Any

import torch

from xgen.model import titan_model
from xgen.model.attention import dense_on_cpu
from xgen.model.hf import Context, config_json, hf_name, parameter_shapes, to_hf
from xgen.spec import ModelSpec, RopeScaling

SMALL: dict[str, Any] = {
    "name": "small", "dim": 64, "num_layers": 2, "num_heads": 4, "num_kv_heads": 4, "ffn_dim": 96, "vocab_size": 512,
}  # fmt: skip


def titan(
    spec: ModelSpec, seq_len: int, theta: float = 1e4, scaling: RopeScaling | None = None, seed: int = 0
) -> torch.nn.Module:
    """Every weight drawn at random, those of the norms too: ones would hide a norm that is missing or misplaced."""
    config = titan_model(spec, seq_len, theta, scaling).model
    for layer in config.layers:
        layer.attention.inner_attention = dense_on_cpu(layer.attention.inner_attention)
    model: torch.nn.Module = config.build()
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.normal_(std=0.1)
    return model


def titan_logits(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    positions = torch.arange(tokens.shape[1]).expand(tokens.shape)
    with torch.no_grad():
        logits: torch.Tensor = model(tokens, positions, model.get_attention_masks(positions))
    return logits


def hugging_face(spec: ModelSpec, state: dict[str, torch.Tensor], context: Context) -> Any:
    """transformers' model from our config.json and our tensors, without a file."""
    import transformers

    content = config_json(spec, context)
    config = transformers.AutoConfig.for_model(**content)
    model = getattr(transformers, content["architectures"][0])(config).eval()
    converted = {hf_name(name): to_hf(name, state[name], spec) for name in parameter_shapes(spec)}
    assert len(converted) == len(state)
    model.load_state_dict(converted, strict=True)
    return model
