"""Text to tokens to samples: corpus, tokenizer, token store, sample index. No torch.

Building is in `xgen.data.build`, apart from here, so that a trainer does not pay for importing it.
"""

from xgen.data.errors import StoreError
from xgen.data.index import SampleIndex
from xgen.data.proof import fold, sample_digest
from xgen.data.store import StoreMeta, TokenStore

__all__ = ["SampleIndex", "StoreError", "StoreMeta", "TokenStore", "fold", "sample_digest"]
