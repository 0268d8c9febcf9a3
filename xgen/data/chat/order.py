"""From the spec of a post-training to the samples that it trains on, and to those that are held out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xgen.data.chat.pairs import PairSamples
from xgen.data.chat.prepare import chat_store, open_store
from xgen.data.chat.samples import ChatSamples, Weighted
from xgen.data.chat.store import ChatStore
from xgen.spec import Preference, Sft


def chat_samples(job: Sft | Preference, run: Path | None = None) -> ChatSamples:
    """What a job trains on, in its order. Raises StoreError for a store that is missing, or of another job, and where
    the training would show a source more often than it may."""
    store = open_store(job, chat_store(job, run))
    parts = [
        Weighted(store.source("train", name), source.weight, source.max_epochs)
        for name, source in job.data.sources.items()
    ]
    samples = _samples(store, parts, job.train.seq_len, job.seed)
    samples.check_caps(job.train.steps * job.train.sequences)
    return samples


def held_out_samples(job: Sft | Preference, run: Path | None = None) -> dict[str, ChatSamples]:
    """Of each source of `validation`: its first `num_samples` hold every record once, in an order that nothing
    changes. Raises StoreError."""
    store = open_store(job, chat_store(job, run))
    return {source.name: epoch_of(store, source.meta.split, source.name) for source in store.split("held-out")}


def epoch_of(store: ChatStore, split: str, name: str) -> ChatSamples:
    """Every record of one source: once in the first `num_samples`."""
    source = store.source("train" if split == "train" else "held-out", name)
    return _samples(store, [Weighted(source)], store.meta.seq_len, 0, one_epoch=True)


def _samples(
    store: ChatStore, parts: Sequence[Weighted], seq_len: int, seed: int, one_epoch: bool = False
) -> ChatSamples:
    kind = PairSamples if store.meta.kind == "pairs" else ChatSamples
    return kind(parts, seq_len, seed, store.meta.fingerprint, one_epoch)
