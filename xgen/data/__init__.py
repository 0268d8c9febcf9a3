"""Text to tokens to samples: corpus, tokenizer, token store, mixture, packed samples. No torch.

What is imported from here is loaded when it is asked for: the command line reads what a store says of itself, and does
not pay for NumPy. Building is in `xgen.data.build` and `xgen.data.ingest`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xgen.data.errors import StoreError
    from xgen.data.meta import StoreMeta, read_meta
    from xgen.data.mixture import Mixture, check_vocabulary, make_mixture, mixtures_for
    from xgen.data.order import Samples, samples_of
    from xgen.data.plain import PlainSamples
    from xgen.data.proof import MODULUS, batch_digest
    from xgen.data.samples import Batch, PackedSamples
    from xgen.data.store import TokenStore

_HOMES = {
    "errors": ("StoreError",),
    "meta": ("StoreMeta", "read_meta"),
    "mixture": ("Mixture", "check_vocabulary", "make_mixture", "mixtures_for"),
    "order": ("Samples", "samples_of"),
    "plain": ("PlainSamples",),
    "proof": ("MODULUS", "batch_digest"),
    "samples": ("Batch", "PackedSamples"),
    "store": ("TokenStore",),
}
__all__ = [
    "MODULUS",
    "Batch",
    "Mixture",
    "PackedSamples",
    "PlainSamples",
    "Samples",
    "StoreError",
    "StoreMeta",
    "TokenStore",
    "batch_digest",
    "check_vocabulary",
    "make_mixture",
    "mixtures_for",
    "read_meta",
    "samples_of",
]


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"xgen.data.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
