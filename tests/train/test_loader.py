"""The global sample index: what a step trains on does not depend on who trains it."""

from __future__ import annotations

import itertools

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize(("world_size", "micro_batch"), [(1, 1), (1, 8), (2, 2), (4, 1), (8, 1)])
def test_a_step_holds_the_same_samples_for_any_number_of_ranks(_warm: None, world_size: int, micro_batch: int) -> None:
    import torch

    from xgen.data.index import SampleIndex
    from xgen.data.store import TokenStore
    from xgen.train.loader import StoreLoader

    store = ROOT / ".cache/tiny-store"
    config = StoreLoader.Config(store=str(store), seed=3, sequences_per_step=8)
    expected = torch.from_numpy(SampleIndex(TokenStore.open(store), 64, 3).batch(16, 8)).long()
    rows = []
    for rank in range(world_size):
        loader = config.build(dp_world_size=world_size, dp_rank=rank, seq_len=64, local_batch_size=micro_batch)
        loader.load_state_dict({"next_sample": 16})
        batches = list(itertools.islice(loader, 8 // world_size // micro_batch))
        rows += [torch.cat([x["input"], y[:, -1:]], dim=1) for x, y in batches]
        assert loader.state_dict() == {"next_sample": 24}
    assert torch.equal(torch.cat(rows), expected)
