"""A corpus from a file to tokens with one tool: python curation.py TOOL TEXTS.jsonl TOKENIZER.json FOLDER.

Runs in the peers' environment, which has nothing of xgen, in one process. `datatrove` does what its FineWeb example
does: the filters, masks for personal data, MinHash in four stages, tokens in shuffled order. `text-dedup` only removes
near duplicates, with its own command; `datasets` only makes tokens, shuffles and saves them. Prints how many documents
were left, last.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from datasets import load_dataset, load_from_disk

WIDE = 0.95  # a threshold that hardly anything passes over: as in benchmarks/whole_curation.py


def datatrove(texts: Path, tokenizer: Path, folder: Path) -> int:
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )
    from datatrove.pipeline.formatters import PIIFormatter
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import DocumentTokenizer
    from datatrove.pipeline.writers.jsonl import JsonlWriter

    place = {name: str(folder / name) for name in ("kept", "signatures", "pairs", "removed", "tokens")}
    stages = [
        [
            JsonlReader(str(texts.parent), glob_pattern=texts.name),
            GopherRepetitionFilter(
                dup_line_frac=WIDE,
                dup_para_frac=WIDE,
                dup_line_char_frac=WIDE,
                dup_para_char_frac=WIDE,
                top_n_grams=tuple((size, WIDE) for size in (2, 3, 4)),
                dup_n_grams=tuple((size, WIDE) for size in range(5, 11)),
            ),
            GopherQualityFilter(max_avg_word_length=100, max_symbol_word_ratio=WIDE, max_non_alpha_words_ratio=0.1),
            C4QualityFilter(filter_no_terminal_punct=False, filter_curly_bracket=False),
            FineWebQualityFilter(
                line_punct_thr=0.001, short_line_thr=WIDE, char_duplicates_ratio=WIDE, new_line_ratio=100
            ),
            PIIFormatter(),
            JsonlWriter(place["kept"]),
        ],
        [JsonlReader(place["kept"]), MinhashDedupSignature(place["signatures"])],
        [MinhashDedupBuckets(place["signatures"], place["pairs"])],
        [MinhashDedupCluster(place["pairs"], place["removed"])],
        [
            JsonlReader(place["kept"]),
            MinhashDedupFilter(place["removed"]),
            DocumentTokenizer(place["tokens"], str(tokenizer), eos_token="<|endoftext|>", seed=1),
        ],
    ]
    for number, stage in enumerate(stages):
        tasks = 14 if number == 2 else 1  # a bucket each
        LocalPipelineExecutor(stage, tasks=tasks, logging_dir=str(folder / f"logs{number}")).run()
    stats = json.loads((folder / "logs4/stats.json").read_text())
    return int(stats[-2]["stats"]["forwarded"])


def text_dedup(texts: Path, _: Path, folder: Path) -> int:
    from text_dedup.minhash import main as minhash

    options = {
        "path": "json", "data_files": str(texts), "split": "train", "cache_dir": str(folder / "cache"),
        "column": "text", "output": str(folder / "out"), "num_proc": 1, "num_perm": 128, "threshold": 0.75,
    }  # fmt: skip
    minhash([part for key, value in options.items() for part in (f"--{key}", str(value))], standalone_mode=False)
    return len(load_from_disk(str(folder / "out")))


def datasets(texts: Path, tokenizer: Path, folder: Path) -> int:
    from tokenizers import Tokenizer

    encoder = Tokenizer.from_file(str(tokenizer))
    rows = load_dataset("json", data_files=str(texts), split="train", cache_dir=str(folder / "cache"))
    rows = rows.map(
        lambda batch: {"tokens": [one.ids for one in encoder.encode_batch(batch["text"])]},
        batched=True,
        remove_columns=rows.column_names,
    )
    rows.shuffle(seed=1).flatten_indices().save_to_disk(str(folder / "out"))
    return len(rows)


TOOLS: dict[str, Callable[[Path, Path, Path], int]] = {
    "datatrove": datatrove,
    "text-dedup": text_dedup,
    "datasets": datasets,
}

if __name__ == "__main__":
    print(TOOLS[sys.argv[1]](*map(Path, sys.argv[2:5])))
