"""Bytes that a stage needs on each GPU: an estimate, by the formulas that its fields state.

Weights, gradients and moments are exact up to FSDP's padding. Activations are counted from the tensors that a layer of
the Llama type keeps for its backward pass, with attention that keeps no matrix of scores (arXiv 2205.05198, section 4,
without the scores); the allocator's fragments and the communication buffers are in `RESERVE`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd

from xgen.spec import ModelSpec, Place

RESERVE = 0.1  # of the GPU's memory: CUDA's context, NCCL's buffers, the allocator's gaps
_STATE = 16  # bytes a parameter: fp32 weight and gradient, and the two moments of AdamW
_LOSS_CHUNKS = 8  # torchtitan's


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU."""

    state: float  # 16 a parameter, over the ranks of fsdp, cp, tp and pp: torchtitan shards over cp too
    gathered: float  # whole bf16 weights: two layers, for the next is fetched ahead, and the embedding or the output
    activations: float  # saved for the backward pass
    working: float  # one layer's, computed again or for the first time
    logits: float  # a chunk of the loss: fp32 logits, their gradient and the exponentials

    @property
    def total(self) -> float:
        return self.state + self.gathered + self.activations + self.working + self.logits


def memory(model: ModelSpec, place: Place) -> Memory:
    stage, parallel, ranks = place.stage, place.stage.parallelism, place.resources.world_size
    layers = -(-model.num_layers // parallel.pp)
    sharded = parallel.shards(ranks) * parallel.cp * parallel.tp * parallel.pp
    per_layer = (model.num_parameters - 2 * model.vocab_size * model.dim) / model.num_layers
    tokens = stage.micro_batch * stage.seq_len / parallel.cp
    # Tokens times width, in bf16: inputs of the norms and of the products, q, k, v, the two halves of SwiGLU.
    kv = model.num_kv_heads * model.head_dim
    whole = 2 * tokens * (8 * model.dim + 2 * kv + 4 * model.ffn_dim) / parallel.tp
    kept = {"none": whole, "selective": whole / 2, "full": 2 * tokens * model.dim / parallel.tp}
    # In a pipeline (1F1B) the first ranks hold as many micro-batches as there are ranks.
    saved = kept[stage.activation_checkpointing] * layers * parallel.pp
    gathered_kv = 2 * 2 * stage.micro_batch * stage.seq_len * kv / parallel.tp if parallel.cp > 1 else 0.0
    chunk = tokens / gcd(_LOSS_CHUNKS, stage.seq_len)
    return Memory(
        state=_STATE * model.num_parameters / sharded,
        gathered=2 * (2 * per_layer + model.vocab_size * model.dim) / parallel.tp,
        activations=saved,
        working=(whole if stage.activation_checkpointing != "none" else 0.0) + 2 * gathered_kv,
        logits=3 * 4 * chunk * model.vocab_size / parallel.tp,
    )


def lever(model: ModelSpec, place: Place, limit: float) -> str:
    """What to write so that a stage fits into `limit` bytes, '' when nothing simple does."""
    stage, parallel = place.stage, place.stage.parallelism
    tries: list[tuple[str, Place]] = []

    def changed(**keys: object) -> Place:
        return replace(place, stage=stage.model_copy(update=keys))

    if stage.micro_batch > 1:
        tries.append(("micro_batch: 1", changed(micro_batch=1)))
    for way in ("selective", "full"):
        if way != stage.activation_checkpointing != "full":
            tries.append((f"activation_checkpointing: {way}", changed(activation_checkpointing=way)))
    full = {"activation_checkpointing": "full", "micro_batch": 1}
    if parallel.replicate > 1:
        shards = parallel.shards(place.resources.world_size) * parallel.replicate
        wider = parallel.model_copy(update={"fsdp": shards, "replicate": 1})
        tries.append(
            (f"parallelism: {{fsdp: {shards}}} and activation_checkpointing: full", changed(parallelism=wider, **full))
        )
    for factor in (2, 4, 8, 16):
        shards = parallel.shards(place.resources.world_size)
        if shards % factor == 0 and stage.seq_len % (256 * parallel.cp * factor) == 0:
            longer = parallel.model_copy(update={"fsdp": shards // factor, "cp": parallel.cp * factor})
            text = f"parallelism: {{fsdp: {longer.fsdp}, cp: {longer.cp}}} and activation_checkpointing: full"
            tries.append((text, changed(parallelism=longer, **full)))
    return next((text for text, tried in tries if memory(model, tried).total <= limit), "")
