"""From our model spec to torchtitan's: a Llama-type decoder, with the RoPE and the attention of the stage."""

from __future__ import annotations

from typing import Any, Literal

import spmd_types as spmd
import torch
from torch.distributed.fsdp import FSDPModule
from torchtitan.distributed.pipeline_parallel import pipeline_llm
from torchtitan.models.common import ComplexRoPE, Embedding, Linear, RMSNorm
from torchtitan.models.common.decoder_sharding import dense_activation_placement, dense_param_placement
from torchtitan.models.llama3 import _EMBEDDING_INIT, _NORM_INIT, _build_llama3_layers, _output_linear_init
from torchtitan.models.llama3.model import Llama3Model
from torchtitan.models.llama3.parallelize import parallelize_llama
from torchtitan.protocols.model_spec import ModelSpec as TitanModelSpec
from torchtitan.protocols.sharding import ShardingConfig

from xgen.model.attention import FlashAttention
from xgen.model.device import ON_CPU
from xgen.model.lora import with_adapters
from xgen.spec import Lora, ModelSpec, RopeScaling


def titan_model(
    model: ModelSpec,
    seq_len: int,
    rope_theta: float,
    rope_scaling: RopeScaling | None = None,
    attention: Literal["flex", "varlen", "flash"] = "flex",
    float8: bool = False,
    lora: Lora | None = None,
) -> TitanModelSpec:
    """The model as torchtitan builds it, for sequences of up to `seq_len` tokens.

    Building one with `flash` raises ImportError without the package flash-attn. `float8` raises ImportError without
    torchao, and ValueError where no GPU can compute in it.
    """
    layers = _build_llama3_layers(
        n_layers=model.num_layers,
        dim=model.dim,
        n_heads=model.num_heads,
        n_kv_heads=model.num_kv_heads,
        hidden_dim=model.ffn_dim,
        rope=_rope(model.head_dim, seq_len, rope_theta, rope_scaling),
        fuse_qkv=lora is None,  # adapters are of single matrices
        attn_backend="varlen" if attention == "flash" else attention,  # torchtitan knows no flash; it reads the same
    )
    for layer in layers:
        layer.attention_norm, layer.ffn_norm = _norm(model, model.dim), _norm(model, model.dim)
        if attention == "flash":
            layer.attention.inner_attention = FlashAttention.Config()
        if model.qk_norm:
            layer.attention.qk_norm = _norm(model, model.head_dim, _of_heads())
    config = Llama3Model.Config(
        dim=model.dim,
        vocab_size=model.vocab_size,
        tok_embeddings=Embedding.Config(
            num_embeddings=model.vocab_size, embedding_dim=model.dim, param_init=_EMBEDDING_INIT
        ),
        norm=_norm(model, model.dim),
        lm_head=Linear.Config(
            in_features=model.dim, out_features=model.vocab_size, param_init=_output_linear_init(model.dim)
        ),
        layers=layers,
    )
    if float8:
        config = _in_float8(config)
    return TitanModelSpec(
        name="xgen",
        flavor=model.name,
        model=with_adapters(config, lora) if lora else config,
        parallelize_fn=_parallelize,
        pipelining_fn=pipeline_llm,
        post_optimizer_build_fn=None,
        state_dict_adapter=None,
    )


def _rope(head_dim: int, seq_len: int, theta: float, scaling: RopeScaling | None) -> ComplexRoPE.Config:
    if scaling is None:
        return ComplexRoPE.Config(dim=head_dim, max_seq_len=seq_len, theta=theta, scaling="none")
    return ComplexRoPE.Config(
        dim=head_dim,
        max_seq_len=seq_len,
        theta=theta,
        # torchtitan 0.3.0 applies it whenever the factor is above 1, which the spec demands, and at any seq_len.
        scaling="yarn",
        rope_factor=scaling.factor,
        original_seq_len=scaling.original,
        beta_fast=scaling.beta_fast,
        beta_slow=scaling.beta_slow,
    )


def _norm(model: ModelSpec, size: int, sharding: ShardingConfig | None = None) -> RMSNorm.Config:
    """With the model's eps: torchtitan's builder of layers takes its own default."""
    return RMSNorm.Config(normalized_shape=size, eps=model.norm_eps, param_init=_NORM_INIT, sharding_config=sharding)


def _of_heads() -> ShardingConfig:
    """Tensor parallelism splits queries and keys by heads, and every rank has the whole weight of their norm. The
    Llama of torchtitan says nothing of this; its Qwen3 does (`models/qwen3/sharding.py`)."""
    heads = dense_activation_placement(tp=spmd.S(2))
    return ShardingConfig(
        state_shardings={"weight": dense_param_placement(tp=spmd.R)},
        in_src_shardings={"input": heads},
        in_dst_shardings={"input": heads},
        out_src_shardings=heads,
        out_dst_shardings=heads,
    )


def _in_float8(config: Llama3Model.Config) -> Llama3Model.Config:
    """Its matrices are multiplied in float8, a scale for every row; the last is not: the loss needs it exact."""
    from torchtitan.components.quantization.float8 import Float8LinearConverter  # imports torch's compiler

    converted: Llama3Model.Config = Float8LinearConverter.Config(filter_fqns=["lm_head"]).build().convert(config)
    return converted


def _parallelize(model: torch.nn.Module, **settings: Any) -> torch.nn.Module:
    parallel: torch.nn.Module = parallelize_llama(model, **settings)
    if ON_CPU:
        for module in parallel.modules():
            if isinstance(module, FSDPModule):
                # gloo knows neither AVG nor PREMUL_SUM, which FSDP2 would use
                module.set_force_sum_reduction_for_comms(True)
    return parallel
