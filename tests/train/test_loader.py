"""The loader: what a step trains on does not depend on who trains it, nor on how it is prepared."""

from __future__ import annotations

import itertools
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import TypeAdapter

from tests.train.conftest import SPEC
from xgen.spec import Pretrain

if TYPE_CHECKING:
    from xgen.train.loader import StoreLoader


def loader(job: Pretrain, world_size: int = 1, rank: int = 0, micro_batch: int = 1) -> StoreLoader:
    from xgen.train.loader import StoreLoader

    config = StoreLoader.Config(job=job, workers=job.data.workers, prefetch=job.data.prefetch)
    built: StoreLoader = config.build(dp_world_size=world_size, dp_rank=rank, local_batch_size=micro_batch, seq_len=64)
    return built


def job(**data: Any) -> Pretrain:
    """Eight samples of 64 tokens a step."""
    spec: dict[str, Any] = deepcopy(SPEC)
    spec["stages"][0] |= {"global_batch": 512, "tokens": 5120}
    spec["data"] |= data
    return TypeAdapter(Pretrain).validate_python(spec)


@pytest.mark.parametrize(
    ("world_size", "micro_batch", "workers", "prefetch"),
    [(1, 1, 1, 4), (1, 8, 0, 1), (2, 2, 3, 7), (4, 1, 2, 1), (8, 1, 1, 2)],
)
@pytest.mark.parametrize("packing", ["best_fit", "none"])
def test_steps_hold_the_same_samples_for_any_number_of_ranks_and_workers(
    _warm: None, packing: str, world_size: int, micro_batch: int, workers: int, prefetch: int
) -> None:
    import torch

    from xgen.data import batch_digest, samples_of

    spec = job(packing=packing, workers=workers, prefetch=prefetch)
    expected = samples_of(spec).batch(16, 24)  # three steps
    digest = 0
    inputs, labels, positions = [], [], []
    for rank in range(world_size):
        one = loader(spec, world_size, rank, micro_batch)
        one.load_state_dict({"next_sample": 16})
        batches = list(itertools.islice(one, 24 // world_size // micro_batch))
        inputs.append(torch.cat([x["input"] for x, _ in batches]).reshape(3, -1, 64))
        positions.append(torch.cat([x["positions"] for x, _ in batches]).reshape(3, -1, 64))
        labels.append(torch.cat([y for _, y in batches]).reshape(3, -1, 64))
        digest += one.take_digest()
        assert one.state_dict() == {"next_sample": 40}
        assert one.take_digest() == 0
    for parts, whole in ((inputs, expected.tokens), (labels, expected.labels), (positions, expected.positions)):
        assert torch.equal(torch.cat(parts, dim=1).reshape(24, 64), torch.from_numpy(whole.copy()))
    assert digest % 2**64 == batch_digest(16, expected)


def test_what_was_prepared_ahead_is_not_yet_consumed(_warm: None) -> None:
    one = loader(job(workers=2, prefetch=8))
    batches = iter(one)
    for number in range(1, 12):
        next(batches)
        assert one.state_dict() == {"next_sample": number // 8 * 8}


def test_failing_read_reaches_the_training(_warm: None) -> None:
    one = loader(job(workers=1))

    def fail(*_: object) -> None:
        raise OSError("stale file handle")

    one.samples.batch = fail  # type: ignore[method-assign,assignment]
    with pytest.raises(OSError, match="stale file handle"):
        next(iter(one))


def test_store_of_a_larger_vocabulary_is_refused(_warm: None) -> None:
    from xgen.data import StoreError

    spec = job()
    small = spec.model_copy(update={"model": spec.model.model_copy(update={"vocab_size": 300})})
    with pytest.raises(StoreError, match=r"a vocabulary of 4096, and the model's is 300; build it with"):
        loader(small)
