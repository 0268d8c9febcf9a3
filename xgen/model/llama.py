"""From our model spec to torchtitan's: a Llama-type decoder, FlexAttention, RoPE base of the stage."""

from __future__ import annotations

from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule
from torchtitan.models.common import ComplexRoPE, Embedding, Linear, RMSNorm
from torchtitan.models.llama3 import _EMBEDDING_INIT, _NORM_INIT, _build_llama3_layers, _output_linear_init
from torchtitan.models.llama3.model import Llama3Model
from torchtitan.models.llama3.parallelize import parallelize_llama
from torchtitan.protocols.model_spec import ModelSpec as TitanModelSpec

from xgen.model.device import ON_CPU
from xgen.spec import ModelSpec


def titan_model(model: ModelSpec, seq_len: int, rope_theta: float) -> TitanModelSpec:
    """The model as torchtitan builds it, for sequences of up to `seq_len` tokens."""
    rope = ComplexRoPE.Config(dim=model.dim // model.num_heads, max_seq_len=seq_len, theta=rope_theta, scaling="none")
    norm = RMSNorm.Config(normalized_shape=model.dim, eps=model.norm_eps, param_init=_NORM_INIT)
    config = Llama3Model.Config(
        dim=model.dim,
        vocab_size=model.vocab_size,
        tok_embeddings=Embedding.Config(
            num_embeddings=model.vocab_size, embedding_dim=model.dim, param_init=_EMBEDDING_INIT
        ),
        norm=norm,
        lm_head=Linear.Config(
            in_features=model.dim, out_features=model.vocab_size, param_init=_output_linear_init(model.dim)
        ),
        layers=_build_llama3_layers(
            n_layers=model.num_layers,
            dim=model.dim,
            n_heads=model.num_heads,
            n_kv_heads=model.num_kv_heads,
            hidden_dim=model.ffn_dim,
            rope=rope,
            fuse_qkv=True,
            attn_backend="flex",
        ),
    )
    return TitanModelSpec(
        name="xgen",
        flavor=model.name,
        model=config,
        parallelize_fn=_parallelize,
        pipelining_fn=None,
        post_optimizer_build_fn=None,
        state_dict_adapter=None,
    )


def _parallelize(model: torch.nn.Module, **settings: Any) -> torch.nn.Module:
    parallel: torch.nn.Module = parallelize_llama(model, **settings)
    if ON_CPU:
        for module in parallel.modules():
            if isinstance(module, FSDPModule):
                # gloo knows neither AVG nor PREMUL_SUM, which FSDP2 would use
                module.set_force_sum_reduction_for_comms(True)
    return parallel
