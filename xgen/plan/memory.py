"""Bytes that a stage needs on each GPU, by the formulas that stand here; `tests/train/test_fake_ranks.py` holds them
against torch's memory tracker.

A step has two moments with much in memory: in the loss all layers have saved their activations, and the output's
weight and its gradients are there whole; in the backward pass a layer is computed again and its gradients come to it.
The larger one counts. Attention keeps no matrix of scores. What `torch.compile` spares is not counted: eager PyTorch
is the upper bound. The allocator's gaps, NCCL's buffers and CUDA's context are in `RESERVE`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd

from xgen.plan.tuned import NOTHING, Beside, adapted
from xgen.spec import Lora, ModelSpec, Place

RESERVE = 0.1  # of the GPU's memory, for what no formula knows: ours
_LOSS_CHUNKS = 8  # torchtitan's


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU when most is in use."""

    moment: str  # loss or backward pass
    parameters: int  # fp32, a shard; gradients and the two moments of AdamW take the same, each
    rope_tables: int  # RoPE: one for all layers
    saved: int  # activations kept for the backward pass
    gathered: int  # weights and gradients that are whole for the moment; a pipeline has no shards of gradients then
    working: int  # in the loss its logits; in the backward pass one layer's tensors, computed again, and gradients
    context: int  # keys and values of the whole sequence, under context parallelism
    adapters: int = 0  # fp32, a shard of low-rank updates; then only they have gradients and moments
    reference: int = 0  # frozen weights beside those in training
    engine: int = 0  # weights and cache of one that generates in the same process

    @property
    def state(self) -> int:
        return self.parameters + 4 * self.adapters if self.adapters else 4 * self.parameters

    @property
    def total(self) -> int:
        training = self.state + self.rope_tables + self.saved + self.gathered + self.working + self.context
        return training + self.reference + self.engine


def memory(model: ModelSpec, place: Place, also: Beside = NOTHING) -> Memory:
    """Of the rank that needs most; without a pipeline all need the same."""
    ranks = range(place.stage.parallelism.pp)
    frozen = also.lora is not None
    most = max((memory_of(model, place, rank, frozen) for rank in ranks), key=lambda one: one.total)
    adapters = _adapters(model, place, also.lora) if also.lora else 0
    return replace(most, adapters=adapters, reference=also.references * most.parameters, engine=also.engine)


def _adapters(model: ModelSpec, place: Place, lora: Lora) -> int:
    parallel = place.stage.parallelism
    tp, shards = parallel.tp, parallel.shards(place.resources.world_size) * parallel.cp
    of_layer = []
    for one in adapted(model, lora):
        inputs, outputs = (one.inputs, one.outputs // tp) if one.by_outputs else (one.inputs // tp, one.outputs)
        of_layer += [(lora.rank, inputs), (outputs, lora.rank)]
    return 4 * model.num_layers * _Weights.sharded(of_layer, shards)


def memory_of(model: ModelSpec, place: Place, pp_rank: int = 0, frozen: bool = False) -> Memory:
    """Of one rank of the pipeline; of `frozen` weights no gradients are made."""
    parallel = place.stage.parallelism
    first, last = pp_rank == 0, pp_rank == parallel.pp - 1
    layers = layers_of(model, parallel.pp)[pp_rank]
    weights = _Weights(model, parallel.tp)
    held = layers * weights.layer + first * weights.embedding + last * weights.output
    # FSDP's shards; torchtitan shards over the ranks of context parallelism too.
    shards = parallel.shards(place.resources.world_size) * parallel.cp
    parameters = 4 * (
        layers * weights.sharded(weights.of_layer, shards)
        + first * weights.sharded(weights.of_embedding, shards)
        + last * weights.sharded(weights.of_output, shards)
    )
    layer = _Layer(model, place, frozen)
    under_way = min(parallel.pp - pp_rank, _micro_batches(place))  # 1F1B
    saved, context = layers * under_way * layer.saved, layers * under_way * layer.saved_context
    # A pipeline keeps all weights whole from the first forward pass on, and sums whole fp32 gradients until the last
    # backward pass, so that their shards are not there yet, and that of one matrix comes to them at a time. Else FSDP
    # has two layers' weights, and the fp32 gradients of one on their way.
    piped = 6 * held - parameters if parallel.pp > 1 else 0
    one_matrix = 2 * model.ffn_dim * model.dim // parallel.tp
    backward = Memory(
        moment="backward pass",
        parameters=parameters,
        rope_tables=layer.table,
        saved=saved,
        gathered=piped + one_matrix if piped else (4 if frozen else 10) * weights.layer,
        working=layer.working,
        context=context + layer.working_context,
    )
    if not last:
        return backward
    hidden, logits = layer.hidden, layer.chunk * model.vocab_size // parallel.tp
    # The output's weight and gradient are bf16; the gradients of the loss's chunks are summed in fp32, and each is
    # cast for that.
    at_weight, at_logits = 12 * weights.output + 2 * logits, 6 * weights.output + 14 * logits
    if frozen:
        gathered, working = 2 * weights.output, hidden + 14 * logits
        loss = replace(backward, moment="loss", gathered=gathered, working=working, context=context)
        return max(backward, loss, key=lambda one: one.total)
    loss = Memory(
        moment="loss",
        parameters=parameters,
        rope_tables=layer.table,
        saved=saved,
        gathered=max(0, piped - 6 * weights.output) + (12 if at_weight > at_logits else 6) * weights.output,
        working=hidden + (2 if at_weight > at_logits else 14) * logits,
        context=context,
    )
    return max(backward, loss, key=lambda one: one.total)


def layers_of(model: ModelSpec, pp: int) -> list[int]:
    """Layers of each rank of a pipeline: torchtitan counts the embedding and the output as one each."""
    if pp == 1:
        return [model.num_layers]
    each, more = divmod(model.num_layers + 2, pp)
    return [each + (rank < more) - (rank in (0, pp - 1)) for rank in range(pp)]


def _micro_batches(place: Place) -> int:
    stage = place.stage
    return stage.sequences_per_step // (place.resources.world_size // stage.parallelism.shared) // stage.micro_batch


class _Weights:
    """Weights of one rank of tensor parallelism, as (rows, columns); norms are whole on each."""

    def __init__(self, model: ModelSpec, tp: int) -> None:
        dim, kv, ffn = model.dim, model.num_kv_heads * model.head_dim, model.ffn_dim
        norms = [(dim, 1), (dim, 1)] + ([(model.head_dim, 1)] * 2 if model.qk_norm else [])
        attention = [((dim + 2 * kv) // tp, dim), (dim, dim // tp)]
        self.of_layer = [*attention, (ffn // tp, dim), (dim, ffn // tp), (ffn // tp, dim), *norms]
        self.of_embedding = [(model.vocab_size // tp, dim)]
        self.of_output = [(model.vocab_size // tp, dim), (dim, 1)]
        self.layer, self.embedding, self.output = map(self._count, (self.of_layer, self.of_embedding, self.of_output))

    @staticmethod
    def _count(tensors: list[tuple[int, int]]) -> int:
        return sum(rows * columns for rows, columns in tensors)

    @staticmethod
    def sharded(tensors: list[tuple[int, int]], shards: int) -> int:
        """Numbers on the first rank: FSDP gives every rank the same number of rows, and the last ones less."""
        return sum(-(-rows // shards) * columns for rows, columns in tensors)


class _Layer:
    """Bytes of a layer's activations on one rank, as eager PyTorch keeps them: bf16, where nothing else is said."""

    def __init__(self, model: ModelSpec, place: Place, frozen: bool) -> None:
        stage, parallel = place.stage, place.stage.parallelism
        tp, cp = parallel.tp, parallel.cp
        tokens = stage.micro_batch * stage.seq_len // cp
        # Numbers a token, split over the tp ranks by heads and width, or (the residual stream) by tokens.
        dim, kv, ffn = model.dim / tp, model.num_kv_heads * model.head_dim / tp, model.ffn_dim / tp
        log_sum_exp, rotation = 4 * model.num_heads / tp, 4 * model.head_dim  # fp32; complex64 of half the head
        own_kv = 2 * kv if cp == 1 else 0
        qk = dim + kv if model.qk_norm else 0
        # The residual stream before attention and feed-forward; the inputs of both, whole on each tp rank; queries,
        # output; keys and values; the two halves of SwiGLU, the gate's SiLU and their product.
        whole = 2 * (2 * dim + 2 * model.dim + 2 * dim + own_kv + qk + 4 * ffn) + log_sum_exp + rotation
        # torchtitan saves every second product: q, k and v; one half of SwiGLU; the output, before it is split.
        scattered = 2 * dim if tp > 1 else 0
        selected = 2 * (dim + (dim + 2 * kv) + dim + ffn + model.dim + scattered) + log_sum_exp
        if frozen:  # adapters come between the products, so that others are every second one: half of the rest, too
            selected = (whole + selected) / 2
        kept = {"none": whole, "selective": selected, "full": 2 * dim}[stage.activation_checkpointing]
        self.saved = int(tokens * kept)
        # While the feed-forward part goes backward: three gradients of its width, the product no more; two of dim.
        self.working = int(tokens * (whole - kept + 2 * (2 * ffn + 2 * dim)))
        if frozen and tp > 1:  # the inputs of adapters are gathered for each of them anew
            self.working += 6 * 2 * tokens * model.dim
        gathered = int(2 * 2 * tokens * cp * kv) if cp > 1 else 0
        self.saved_context = gathered if stage.activation_checkpointing == "none" else 0
        self.working_context = gathered - self.saved_context
        self.table = stage.seq_len * 4 * model.head_dim  # complex64, for half of a head
        # The last norm's input and output, the chunks of it, and the fp32 gradient that they sum up to.
        self.hidden = int(tokens * (2 * dim + 2 * model.dim + 2 * model.dim + 4 * model.dim))
        self.chunk = tokens // gcd(_LOSS_CHUNKS, stage.seq_len)
