"""Whether a stage can be split over its ranks as its `parallelism` says; what cannot is refused with sizes that can."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from xgen.spec import LoadedJob, ModelSpec, Place, Problem
from xgen.spec.units import format_length

_FACTORS = ("replicate", "tp", "cp", "pp")  # fsdp takes what they leave
_BLOCK = 128  # tokens: FlexAttention's


def check_layout(loaded: LoadedJob, model: ModelSpec, place: Place, at: str) -> Iterator[Problem]:
    """What is wrong with the split of the model and the sequence, else of the ranks; and of the batch. `at` is the key
    of the stage."""
    stage = place.stage
    faults = list(_check_factors(model, place)) or list(_check_product(model, place))
    if stage.global_batch % stage.seq_len:
        near = max(1, round(stage.global_batch / stage.seq_len)) * stage.seq_len
        faults.append(
            (
                "global_batch",
                f"{stage.global_batch} tokens are no whole number of sequences of {stage.seq_len}; write {near}",
            )
        )
    for key, message in faults or _check_batch(place, in_sequences=at == "train"):
        yield loaded.problem(f"{at}.{key}", message)


def fits(model: ModelSpec, place: Place) -> bool:
    """Whether model, sequence and ranks divide by the layout."""
    return not any(_why_not(model, place, name) for name in _FACTORS) and _leftover(place) == 0


def with_parallelism(place: Place, **factors: int) -> Place:
    """The stage in another layout."""
    parallelism = place.stage.parallelism.model_copy(update=factors)
    return replace(place, stage=place.stage.model_copy(update={"parallelism": parallelism}))


def _leftover(place: Place) -> int:
    """Ranks that no shard of a copy would have."""
    return place.resources.world_size % place.stage.parallelism.others


def _why_not(model: ModelSpec, place: Place, name: str) -> str:
    """Why a factor cannot be what it is, whatever the others; '' when it can."""
    stage, per_node = place.stage, place.resources.gpus_per_node
    tp, cp, pp = stage.parallelism.tp, stage.parallelism.cp, stage.parallelism.pp
    # Context parallelism gives each rank a block from the head and one from the tail, to balance.
    pieces = 2 * cp if cp > 1 else 1
    if name == "tp" and per_node % tp:
        return f"does not divide a node's {per_node} GPUs, and its ranks talk at every layer"
    if name == "tp" and (model.num_kv_heads % tp or model.num_heads % tp):  # torchtitan demands it, of no other size
        return f"does not divide the model's {model.num_heads} heads and {model.num_kv_heads} KV heads"
    if name == "tp" and stage.seq_len % pieces == 0 and stage.seq_len % (pieces * tp):  # torchtitan/trainer.py
        return f"does not divide seq_len {stage.seq_len}{f' in {pieces} pieces, for cp: {cp}' if cp > 1 else ''}"
    if name == "cp" and cp > 1 and stage.seq_len % (pieces * _BLOCK):
        return f"does not divide {format_length(stage.seq_len)} into blocks of {_BLOCK}, two a rank"
    if name == "pp" and pp > model.num_layers:
        return f"is more than the model's {model.num_layers} layers"
    return ""


def _check_factors(model: ModelSpec, place: Place) -> Iterator[tuple[str, str]]:
    for name in _FACTORS:
        if said := _why_not(model, place, name):
            size = getattr(place.stage.parallelism, name)
            choices = _choices(model, place, name) or [
                n for n in _divisors(place) if not _why_not(model, with_parallelism(place, **{name: n}), name)
            ]
            yield f"parallelism.{name}", f"{size} {said}; write {_nearest(choices, size)}"


def _check_product(model: ModelSpec, place: Place) -> Iterator[tuple[str, str]]:
    parallel, resources = place.stage.parallelism, place.resources
    ranks = resources.world_size
    where = f"{ranks}, the ranks of {resources.nodes} nodes x {resources.gpus_per_node} GPUs"
    fsdp = parallel.shards(ranks)
    if _leftover(place):
        sizes = {name: getattr(parallel, name) for name in _FACTORS if getattr(parallel, name) > 1}
        for name in sorted(sizes, key=lambda name: ranks % sizes[name] == 0):  # one that is wrong by itself first
            if choices := _choices(model, place, name):
                others = " x ".join(f"{other} {size}" for other, size in sizes.items() if other != name)
                with_others = f" with {others}" if others else ""
                yield (
                    f"parallelism.{name}",
                    f"{sizes[name]}{with_others} does not divide {where}; write {_nearest(choices, sizes[name])}",
                )
                return
        product = " x ".join(f"{name} {size}" for name, size in sizes.items())
        yield "parallelism", f"{product} does not divide {where}; write smaller ones, or other resources"
    elif fsdp * parallel.others != ranks:
        factors = f"fsdp {fsdp} x replicate {parallel.replicate}" + "".join(
            f" x {name} {size}" for name in ("tp", "cp", "pp") if (size := getattr(parallel, name)) > 1
        )
        yield "parallelism", f"{factors} is not {where}; write fsdp: {ranks // parallel.others}"


def _check_batch(place: Place, in_sequences: bool) -> Iterator[tuple[str, str]]:
    """`in_sequences`: the batch is written so, not in tokens."""
    stage, parallel = place.stage, place.stage.parallelism
    sharing = place.resources.world_size // parallel.shared
    micro_batches, rest = divmod(stage.sequences_per_step, sharing * stage.micro_batch)
    if rest:
        sequences = sharing * stage.micro_batch
        unit = f"{sequences}" if in_sequences else f"{sequences * stage.seq_len} tokens"
        yield (
            "sequences" if in_sequences else "global_batch",
            f"{stage.sequences_per_step} sequences do not divide over {sharing} ranks with micro_batch "
            f"{stage.micro_batch}; write a multiple of {unit}",
        )
    elif micro_batches < parallel.pp:
        yield (
            "parallelism.pp",
            f"{parallel.pp} ranks would wait for one another: a step has {micro_batches} micro-batches for them; "
            "write a larger global_batch, a smaller micro_batch, or less",
        )


def _divisors(place: Place) -> list[int]:
    ranks = place.resources.world_size
    return [size for size in range(1, ranks + 1) if ranks % size == 0]


def _choices(model: ModelSpec, place: Place, name: str) -> list[int]:
    """Sizes of a factor with which all fit, the others left as they are."""
    return [size for size in _divisors(place) if fits(model, with_parallelism(place, **{name: size}))]


def _nearest(choices: list[int], size: int) -> str:
    """`8 or 16`: the next smaller and the next larger."""
    near = [*[n for n in choices if n < size][-1:], *[n for n in choices if n > size][:1]]
    return " or ".join(map(str, near))
