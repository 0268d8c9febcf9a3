"""Low-rank updates of the matrices of a model: W + alpha / rank * B A, of which A and B are trained.

arXiv 2106.09685; the modules are torchtitan's.
"""

from __future__ import annotations

import torch
from torchtitan.components.lora import LoRAConverter
from torchtitan.models.llama3.model import Llama3Model

from xgen.model.hf import parameter_shapes
from xgen.spec import Lora, ModelSpec

# torchtitan's names of the matrices, in a configuration; there keys and values have one for both.
_TARGETS = {"attention": ("wq", "wkv", "wo"), "feed_forward": ("w1", "w2", "w3")}
_MATRICES = {"attention": ("wq", "wk", "wv", "wo"), "feed_forward": ("w1", "w2", "w3")}
_ADAPTERS = (".lora_a.weight", ".lora_b.weight")


def with_adapters(config: Llama3Model.Config, lora: Lora) -> Llama3Model.Config:
    """The model with frozen weights and adapters to train; its query, key and value matrices must be three."""
    attention = [layer.attention.inner_attention for layer in config.layers]
    targets = [name for target in lora.targets for name in _TARGETS[target]]
    converter = LoRAConverter.Config(rank=lora.rank, alpha=lora.alpha, target_modules=targets).build()
    converted: Llama3Model.Config = converter.convert(config)
    for layer, inner in zip(converted.layers, attention, strict=True):
        # It has no weights to freeze, and what replaces it on another device knows it by its very class.
        layer.attention.inner_attention = inner
    return converted


def is_adapter(name: str) -> bool:
    """Of a parameter by torchtitan's name."""
    return name.endswith(_ADAPTERS)


def adapters_of(name: str) -> tuple[str, str]:
    """Names of A and B of a matrix."""
    a, b = (name.removesuffix(".weight") + adapter for adapter in _ADAPTERS)
    return a, b


def adapter_shapes(model: ModelSpec, lora: Lora) -> dict[str, tuple[int, ...]]:
    """Every adapter by its name: A is [rank, in], B is [out, rank]."""
    matrices = {name for target in lora.targets for name in _MATRICES[target]}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in parameter_shapes(model).items():
        if name.split(".")[-2] in matrices:
            a, b = adapters_of(name)
            shapes |= {a: (lora.rank, shape[1]), b: (shape[0], lora.rank)}
    return shapes


def merge(weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, lora: Lora) -> torch.Tensor:
    """The matrix with its update, in fp32."""
    return weight.float() + lora.alpha / lora.rank * (b.float() @ a.float())
