"""From a file of text to a store of tokens: what `benchmarks.curation` measures end to end.

Each tool is a process of its own on one core, and its CPU time counts with all that it starts, imports included: the
same text, with one document in five a copy of an earlier one. xgen and datatrove do the same work: FineWeb's filters,
masks for personal data, near duplicates, tokens in a shuffled order. Thresholds are so wide that most documents pass:
each step has its work. The others do a part of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from benchmarks.common import ROOT

TOKENIZER = ROOT / ".cache/tiny-store/tokenizer.json"
PARTS = {"datatrove": "datatrove", "text-dedup": "text-dedup, duplicates only", "datasets": "datasets, tokens only"}
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
) | {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
_SPEC = """\
kind: curate
name: benchmark
out: {folder}/out
inputs: [{{path: {texts}, domain: text}}]
filters:
  - gopher_repetition:
      {{max_duplicate_paragraphs: 0.95, max_duplicate_paragraph_chars: 0.95, max_duplicate_lines: 0.95,
        max_duplicate_line_chars: 0.95, max_top_2_gram: 0.95, max_top_3_gram: 0.95, max_top_4_gram: 0.95,
        max_duplicate_5_grams: 0.95, max_duplicate_6_grams: 0.95, max_duplicate_7_grams: 0.95,
        max_duplicate_8_grams: 0.95, max_duplicate_9_grams: 0.95, max_duplicate_10_grams: 0.95}}
    gopher_quality: {{max_mean_word_length: 100, max_hashes_per_word: 0.95, max_ellipses_per_word: 0.95,
                     min_letter_words: 0.1}}
    c4: {{terminal_punctuation: false, curly_brackets: false}}
    fineweb: {{min_terminal_lines: 0.001, max_short_lines: 0.95, max_duplicate_line_chars: 0.95,
              max_new_lines_per_word: 100}}
tokenizer: {tokenizer}
mixtures: {{all: {{tokens: 1T, max_epochs: 1}}}}
resources: {{nodes: 1, gpus_per_node: 0, cpus_per_task: 1, memory: 4GB, time: 1h}}
"""


def measure(python: Path, texts: list[str], rounds: int, folder: Path) -> dict[str, list[float]]:
    """MB/s of CPU time, by tool. `python` is that of the peers."""
    copied = [text for number, text in enumerate(texts) for text in [text] * (1 + (number % 4 == 0))]
    num_bytes = sum(len(text.encode()) for text in copied)
    whole, few = folder / "whole.jsonl", folder / "few.jsonl"
    for file, some in ((whole, copied), (few, copied[:200])):
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in some))
    rates: dict[str, list[float]] = defaultdict(list)
    _ours(few, folder / "few")  # compiles
    for turn in range(rounds):
        place = folder / f"{turn}"
        rates["end to end"].append(num_bytes / _ours(whole, place / "xgen") / 1e6)
        for tool, name in PARTS.items():
            script = [str(python), str(ROOT / "benchmarks/peers/curation.py"), tool, str(whole), str(TOKENIZER)]
            seconds = _cpu_seconds([*script, str(place / tool)], place / tool)
            rates[f"end to end, {name}"].append(num_bytes / seconds / 1e6)
    return rates


def _ours(texts: Path, folder: Path) -> float:
    folder.mkdir(parents=True)
    spec = folder / "curate.yaml"
    spec.write_text(_SPEC.format(folder=folder, texts=texts, tokenizer=TOKENIZER))
    return _cpu_seconds(
        [str(Path(sys.executable).with_name("xgen")), "data", "curate", str(spec), "--workers", "1"], folder
    )


def _cpu_seconds(command: list[str], folder: Path) -> float:
    """Of a process and its children, on one core."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["taskset", "-c", str(min(os.sched_getaffinity(0))), *command],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=folder,
            env=os.environ | _ONE_THREAD,
        )
        _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed:\n{(folder / 'log').read_text()[-2000:]}")
    return used.ru_utime + used.ru_stime
