"""What an evaluation reads, computes and holds: numbers of our own engine, for each suite and length.

What the harness does depends on its data sets and is not among them. Every prompt is taken for as long as it may be,
and every answer too: numbers are upper bounds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from xgen.plan.tuned import GENERATION_MFU, num_gpus
from xgen.spec import Checkpoints, Evaluate, ModelSpec, Profile, SpecError, Trained, load_resolved

ANSWER = 128  # tokens, of the longest answers that RULER gives room to; in the length of its sample
_TOGETHER = 8192  # tokens of prompts that the engine computes together


@dataclass(frozen=True)
class Part:
    """Of one suite at one length, for one checkpoint."""

    suite: str
    length: int
    samples: int
    prompt_tokens: int
    answer_tokens: int
    prompt_flops: float
    answer_flops: float

    def seconds(self, profile: Profile) -> float:
        """On one GPU. Prompts are limited by arithmetic, as a training is, and answers by memory."""
        peak = profile.gpus.flops
        return self.prompt_flops / (peak * profile.gpus.mfu) + self.answer_flops / (peak * GENERATION_MFU)


@dataclass(frozen=True)
class Holding:
    """Bytes on a GPU while the longest sample is answered."""

    weights: int  # bf16
    cache: int  # keys and values, bf16, of the answers that are on their way together
    working: int  # of the prompt's tokens that are computed together

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.working


@dataclass(frozen=True)
class Evaluation:
    """All numbers are of one checkpoint."""

    parts: tuple[Part, ...]
    num_checkpoints: int | None  # at most; None: of a run that cannot be read
    seconds: float  # with all shards that may run at once
    gpu_hours: float
    holding: Holding | None  # None: of a model that is not known
    has_harness: bool  # beside the parts

    @property
    def samples(self) -> int:
        return sum(part.samples for part in self.parts)

    @property
    def tokens(self) -> int:
        return sum(part.prompt_tokens + part.answer_tokens for part in self.parts)

    @property
    def flops(self) -> float:
        return sum(part.prompt_flops + part.answer_flops for part in self.parts)


def evaluated_run(job: Evaluate, profile: Profile) -> Trained | None:
    """What the run that is scored trains; None for a folder, and for what is no such run."""
    if job.checkpoints.run is None:
        return None
    try:
        found = load_resolved(Path(profile.run_root) / job.checkpoints.run / "spec.yaml")  # an absolute path stays
    except (OSError, SpecError):
        return None
    return found if isinstance(found, Trained) else None


def evaluation(job: Evaluate, profile: Profile) -> Evaluation:
    """Time follows from the FLOPs, the profile's peak FLOP/s and its MFU; without the model it is 0."""
    run = evaluated_run(job, profile)
    model = run.model if run else None
    parts, gpus = tuple(_parts(job, model)), num_gpus(job, 0)
    seconds = sum(part.seconds(profile) for part in parts)
    holding = holds(model, job) if model and job.longest else None
    times = _num_checkpoints(job.checkpoints, run)
    return Evaluation(parts, times, seconds / gpus, seconds / 3600, holding, job.harness is not None)


def holds(model: ModelSpec, job: Evaluate, length: int = 0) -> Holding:
    """With the longest sample, or one of that length; with `at_once` of them, where the spec says how many."""
    length = length or job.longest
    kv = model.num_kv_heads * model.head_dim
    # The residual stream, its norm and the two sums; queries, keys and values; both halves of SwiGLU and the product.
    layer = 2 * (4 * model.dim + model.dim + 2 * kv + 3 * model.ffn_dim)
    return Holding(
        weights=2 * model.num_parameters,
        cache=2 * 2 * model.num_layers * kv * length * max(1, job.at_once),
        working=layer * min(length, _TOGETHER) + 4 * model.head_dim * length,  # RoPE's table
    )


def prompt_flops(model: ModelSpec, tokens: int, *, logits: bool = False) -> float:
    """A pass forward: 2 a parameter that is multiplied, the output's for the last token alone unless all `logits` are
    wanted, and 2 x layers x dim x tokens for causal attention, each token seeing half of them."""
    output = model.vocab_size * model.dim
    inner = model.num_parameters - 2 * output
    attention = 2 * model.num_layers * model.dim * tokens
    return float(tokens * (2 * inner + attention) + 2 * output * (tokens if logits else 1))


def answer_flops(model: ModelSpec, prompt: int, tokens: int) -> float:
    """Token by token, each of which sees all that came before."""
    multiplied = model.num_parameters - model.vocab_size * model.dim
    return float(tokens * (2 * multiplied + 4 * model.num_layers * model.dim * (prompt + tokens / 2)))


def _parts(job: Evaluate, model: ModelSpec | None) -> Iterator[Part]:
    if job.ruler:
        for length in job.ruler.lengths:
            yield _generated("ruler", length, len(job.ruler.tasks) * job.ruler.samples, model)
    if job.needles:
        for length in job.needles.lengths:
            yield _generated("needles", length, job.needles.depths * job.needles.samples, model)
    if job.recall:
        for length in job.recall.lengths:
            yield _generated("recall", length, job.recall.samples, model)
    for name, one in job.perplexity.items():
        flops = prompt_flops(model, one.length, logits=True) if model else 0.0
        yield Part(
            f"perplexity {name}", one.length, one.documents, one.documents * one.length, 0, one.documents * flops, 0.0
        )


def _generated(suite: str, length: int, samples: int, model: ModelSpec | None) -> Part:
    answer = min(ANSWER, length // 2)
    prompt = length - answer
    reading = prompt_flops(model, prompt) if model else 0.0
    writing = answer_flops(model, prompt, answer) if model else 0.0
    return Part(suite, length, samples, samples * prompt, samples * answer, samples * reading, samples * writing)


def _num_checkpoints(wanted: Checkpoints, run: Trained | None) -> int | None:
    """At most: of those that a training saves by its spec, some are deleted as it goes on."""
    if wanted.every is None:
        return len(wanted.steps) or 1
    if run is None:
        return None
    return sum(wanted.takes(step) for step in saved_steps(run))


def saved_steps(run: Trained) -> list[int]:
    """Steps at which a run saves by its spec: every so many, and at the end of each stage."""
    last = run.places[-1].last_step
    return sorted({*range(run.checkpoint.every, last, run.checkpoint.every), *(one.last_step for one in run.places)})
