"""What to change in a stage that does not fit."""

from __future__ import annotations

from dataclasses import replace

from xgen.plan.memory import memory
from xgen.spec import ModelSpec, Place


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
