"""From a job spec to the samples that it trains on."""

from __future__ import annotations

from pathlib import Path

from xgen.data.mixture import check_vocabulary, mixture_for
from xgen.data.plain import PlainSamples
from xgen.data.samples import PackedSamples
from xgen.data.store import TokenStore
from xgen.spec import Pretrain

Samples = PackedSamples | PlainSamples


def samples_of(job: Pretrain) -> Samples:
    """The samples that a job trains on, in its order: the trainer and an audit ask for the same.

    Raises StoreError for a store that is missing or broken, one of another vocabulary, and a mixture that its text
    cannot give for the whole training.
    """
    stage = job.stage
    stores = {name: TokenStore.open(Path(folder)) for name, folder in job.data.folders.items()}
    check_vocabulary(job, {name: store.meta for name, store in stores.items()})
    if job.data.packing == "none":
        return PlainSamples(next(iter(stores.values())), stage.seq_len, job.seed)
    return PackedSamples(mixture_for(job, stores), stage.seq_len, job.seed)
