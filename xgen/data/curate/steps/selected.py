"""What `select` writes of a unit: tokens, a row for each document, and why a chosen one went all the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from numpy.typing import NDArray

from xgen.data.curate.report_model import Sample
from xgen.data.curate.spread import document_keys
from xgen.data.curate.steps import results
from xgen.data.curate.steps.chosen import Batch
from xgen.data.curate.steps.ledger import Ledger
from xgen.data.curate.steps.tag import DROPPED_FILE, ZSTD
from xgen.data.curate.tally import size_bins
from xgen.data.curate.texts import Texts
from xgen.data.encode import Encoder
from xgen.data.store import token_type
from xgen.data.tokenizer import Tokenizer

TABLE = pyarrow.schema(
    [
        ("number", pyarrow.uint64()),
        ("domain", pyarrow.string()),
        ("source", pyarrow.string()),
        ("licence", pyarrow.string()),
        ("language", pyarrow.string()),
        ("score", pyarrow.float32()),
        ("size", pyarrow.uint32()),  # of its cluster
        ("bytes", pyarrow.int64()),
        ("num_tokens", pyarrow.int64()),  # with the end of text
        ("begin", pyarrow.int64()),  # in tokens.bin
    ]
)
DROPPED = pyarrow.schema(
    [
        ("number", pyarrow.uint64()),
        ("domain", pyarrow.string()),
        ("source", pyarrow.string()),
        ("reason", pyarrow.string()),
        ("value", pyarrow.float64()),
        ("bound", pyarrow.float64()),
        ("other", pyarrow.int64()),  # the item of the evaluation set
        ("bytes", pyarrow.int64()),
        ("excerpt", pyarrow.string()),
    ]
)
_RUN_BYTES = 1 << 17


@dataclass
class Rows:
    """The table as it grows."""

    tokenizer: Tokenizer
    columns: dict[str, list[object]] = field(default_factory=lambda: {name: [] for name in TABLE.names[:-2]})
    tokens: list[NDArray[np.uint32]] = field(default_factory=list)
    leaks: list[tuple[int, int]] = field(default_factory=list)
    dropped: list[dict[str, Any]] = field(default_factory=list)

    def drop(self, ledger: Ledger, reason: str, num_bytes: int, sample: Sample, bound: float | None = None) -> None:
        ledger.drop(reason, num_bytes, sample, bound)
        about = sample.model_dump(include={"domain", "source", "value", "other"})
        self.dropped.append(
            about
            | {"number": sample.document, "reason": reason, "bound": bound, "bytes": num_bytes, "excerpt": sample.text}
        )

    def add(self, batch: Batch, encoder: Encoder, size: NDArray[np.uint32], first: bool) -> None:
        """Documents that stay; `size` has that of the cluster of every document."""
        if not len(batch.texts):
            return
        columns = self.columns
        columns["number"] += batch.numbers.tolist()
        columns["domain"] += batch.domains
        columns["source"] += batch.sources
        columns["licence"] += batch.licences
        columns["language"] += batch.languages
        columns["score"] += batch.scores.tolist()
        columns["size"] += size[batch.numbers.astype(np.int64)].tolist()
        columns["bytes"] += np.diff(batch.texts.offsets).tolist()
        kind = np.dtype(token_type(self.tokenizer.vocab_size)).newbyteorder("<")
        for number, some in enumerate(_runs(batch.texts)):
            self.tokens += [tokens.astype(kind) for tokens in encoder.encode(some, first and number == 0)]

    def write(self, folder: Path, seed: int) -> None:
        end = self.tokenizer.end_of_text
        lengths = np.array([len(tokens) + 1 for tokens in self.tokens], dtype=np.int64)
        keys = document_keys(np.array(self.columns["number"], dtype=np.uint64), "spread", seed)
        sizes = np.array(self.columns["size"], dtype=np.uint32)
        # Documents of like clusters have as many copies, so those of a stretch are neighbours.
        order = np.lexsort((keys, size_bins(sizes)))
        begins = np.zeros(len(lengths), dtype=np.int64)
        begins[order] = np.concatenate([[0], np.cumsum(lengths[order])[:-1]]) if len(lengths) else 0
        with (folder / results.TOKENS_FILE).open("wb") as file:
            for place in order.tolist():
                tokens = self.tokens[place]
                file.write(tokens.tobytes())
                file.write(np.array([end], dtype=tokens.dtype).tobytes())
        table = pyarrow.table({**self.columns, "num_tokens": lengths, "begin": begins}, schema=TABLE)
        with pyarrow.ipc.new_file(folder / results.TABLE_FILE, TABLE, options=ZSTD) as out:
            out.write_table(table)
        dropped = sorted(self.dropped, key=itemgetter("number"))
        with pyarrow.ipc.new_file(folder / DROPPED_FILE, DROPPED, options=ZSTD) as out:
            out.write_table(pyarrow.Table.from_pylist(dropped, schema=DROPPED))
        np.save(folder / results.LEAKS_FILE, np.array(self.leaks, dtype=np.int64).reshape(-1, 2))


def _runs(texts: Texts) -> Iterator[list[str]]:
    """Texts in runs of about `_RUN_BYTES`: what an encoder compares at once."""
    run: list[str] = []
    begin = 0
    for at in range(len(texts)):
        run.append(texts[at])
        if texts.offsets[at + 1] - begin >= _RUN_BYTES:
            yield run
            run, begin = [], int(texts.offsets[at + 1])
    if run:
        yield run
