"""What a post-training computes and holds besides what a pre-training of the same model does.

A pass forward is a third of a step's work. What only some tokens need is counted for all: numbers are upper bounds.
"""

from __future__ import annotations

from dataclasses import dataclass

from xgen.spec import Job, Lora, ModelSpec, Preference, Profile, Rl, Trained

# Of the peak, while tokens are generated one after the other: weights and keys are read for each, so memory is the
# limit, not arithmetic. Ours; vLLM's figures for 8B models on an H100 at batches of 256 are 0.1 to 0.2.
GENERATION_MFU = 0.1


@dataclass(frozen=True)
class Beside:
    """What lies in a GPU's memory besides the training itself."""

    lora: Lora | None = None  # then gradients and moments are those of the adapters alone
    references: int = 0  # frozen copies of the weights, in shards
    engine: int = 0  # bytes of weights and cache of the engine that generates in the trainer's processes


NOTHING = Beside()


@dataclass(frozen=True)
class Matrix:
    """One that gets an update B A: A is [rank, inputs], B is [outputs, rank]. Tensor parallelism splits its outputs,
    and B with them, or its inputs, and A."""

    inputs: int
    outputs: int
    by_outputs: bool


def adapted(model: ModelSpec, lora: Lora) -> list[Matrix]:
    """Of one layer."""
    dim, kv, ffn = model.dim, model.num_kv_heads * model.head_dim, model.ffn_dim
    matrices = {
        "attention": [Matrix(dim, n, by_outputs=True) for n in (dim, kv, kv)] + [Matrix(dim, dim, by_outputs=False)],
        "feed_forward": [Matrix(dim, ffn, by_outputs=True)] * 2 + [Matrix(ffn, dim, by_outputs=False)],
    }
    return [matrix for target in lora.targets for matrix in matrices[target]]


def num_adapters(model: ModelSpec, lora: Lora) -> int:
    """Parameters of the low-rank updates."""
    return model.num_layers * lora.rank * sum(one.inputs + one.outputs for one in adapted(model, lora))


def beside(job: Trained) -> Beside:
    references = engine = 0
    match job:
        case Preference():
            references = int(job.loss.needs_reference and job.reference == "frozen")
        case Rl():
            references = int(job.loss.kl > 0)
            if job.rollout.servers is None:
                model, held = job.model, job.prompts.max_tokens + job.rollout.max_tokens
                kv = 2 * model.num_kv_heads * model.head_dim * model.num_layers
                engine = 2 * (model.num_parameters + job.rollout.at_once * held * kv)
    return Beside(job.adapters, references, engine)


def flops_per_token(job: Trained, seq_len: int) -> int:
    """Of a step of training, all passes together; what is computed again for activations is not counted."""
    model = job.model
    whole = own = model.flops_per_token(seq_len)
    output = 2 * model.vocab_size * model.dim
    if lora := job.adapters:  # no gradient of a frozen matrix is computed
        multiplied = model.num_parameters - model.vocab_size * model.dim
        own += 6 * num_adapters(model, lora) - 2 * multiplied
    match job:
        case Preference():  # its output layer is run twice
            own += output + beside(job).references * whole // 3
        case Rl():
            passes = beside(job).references + (job.loss.updates > 1)
            own += output + passes * whole // 3
    return own


def generated_tokens(job: Rl) -> int:
    """Of a step, should every answer take all that it may."""
    return job.rollout.prompts * job.rollout.group * job.rollout.max_tokens


def generation_flops(job: Rl) -> int:
    """Of a token, in the middle of an answer."""
    return job.model.flops_per_token(job.prompts.max_tokens + job.rollout.max_tokens // 2) // 3


def generation_seconds(job: Rl, profile: Profile, num_gpus: int) -> float:
    """Of a step, on so many GPUs."""
    flops = generation_flops(job) * generated_tokens(job)
    return flops / (num_gpus * profile.gpus.flops * GENERATION_MFU)


def num_gpus(job: Job, stage: int) -> int:
    """Of a job, with all shards of it that may run at once; a node without a GPU counts as one."""
    _, resources = job.jobs[stage]
    array = job.array_of(stage)
    each = resources.nodes * max(1, resources.gpus_per_node)
    return each * (min(array.shards, array.at_once or array.shards) if array else 1)
