"""From a job spec to the samples that it trains on."""

from __future__ import annotations

from pathlib import Path

from xgen.data.chat.samples import ChatSamples
from xgen.data.mixture import check_vocabulary, mixtures_for
from xgen.data.plain import PlainSamples
from xgen.data.samples import PackedSamples, block_tokens
from xgen.data.store import TokenStore
from xgen.spec import Preference, Pretrain, Sft, Trained

Samples = PackedSamples | PlainSamples | ChatSamples


def samples_of(job: Trained, stage: int = 0, run: Path | None = None) -> Samples:
    """The samples that a stage of a job trains on, in its order: the trainer and an audit ask for the same. `run`: the
    run directory, where the conversations of a post-training lie unless its spec says `data.out`.

    Raises StoreError for a store that is missing or broken, one of another vocabulary, and a mixture that its text
    cannot give for the whole training.
    """
    if isinstance(job, Sft | Preference):
        from xgen.data.chat.order import chat_samples

        return chat_samples(job, run)
    assert isinstance(job, Pretrain), "an online RL makes its own samples"
    seq_len = job.stages[stage].seq_len
    stores = {name: TokenStore.open(Path(folder)) for name, folder in job.data.folders.items()}
    check_vocabulary(job, {name: store.meta for name, store in stores.items()})
    if job.data.packing == "none":
        return PlainSamples(next(iter(stores.values())), seq_len, job.seed)
    mixtures = mixtures_for(job, stores)
    # The same blocks in all stages: another size would be another order of the documents.
    block = max(block_tokens(mixture, s.seq_len) for mixture, s in zip(mixtures, job.stages, strict=True))
    return PackedSamples(mixtures[stage], seq_len, job.seed, block)
