"""Chat data beside transformers: `python -m benchmarks.chat [--json] [--rounds N]`.

Conversations of the tiny store's text (one to three turns, lengths log-normal as those of chat data are) become token
ids with a mask of what is learnt. transformers: `apply_chat_template(tokenize=True, return_dict=True,
return_assistant_tokens_mask=True)` in a loop. Ours: record to ids and mask, in one thread; and the whole of `prepare`,
from jsonl to the store, in processes. All in MB of text a second of CPU time: other work on the machine changes it
little. Without the `{% generation %}` tag transformers gives no mask; ours is then found by rendering prefixes.
Every id is compared. Also the padding of packed samples at 8k to 128k, of lengths as documents of the web have them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import ROOT, Figure, Result
from xgen.data.chat.encode import ChatEncoder, choose_engine
from xgen.data.chat.meta import Counts, SourceMeta
from xgen.data.chat.prepare import prepare
from xgen.data.chat.samples import ChatSamples, Weighted
from xgen.data.chat.schema import conversation_of
from xgen.data.chat.store import Source
from xgen.data.chat.template import CHATML
from xgen.data.chat.tokenizer import ChatTokenizer
from xgen.data.documents import read_documents
from xgen.spec import load_job

CORPUS = ROOT / ".cache/tiny-store"
CONVERSATIONS = 4000
_BATCH = 200
_SPEC = """
kind: sft
name: chat-benchmark
init: none
model: {{name: b, dim: 64, num_layers: 1, num_heads: 1, num_kv_heads: 1, ffn_dim: 64, vocab_size: 4160}}
resources: {{partition: none, nodes: 1, gpus_per_node: 1, cpus_per_task: 1, memory: 1GB, time: 1h}}
data: {{tokenizer: tagged, sources: {{a: {{path: chats.jsonl}}}}}}
train: {{steps: 1, sequences: 1, seq_len: 8k, lr: {{peak: 1e-4}}}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chat", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # transformers encodes one conversation at a time anyway
    with tempfile.TemporaryDirectory(prefix="xgen-chat-") as folder:
        measure(Path(folder), options.rounds).print(options.json)


def measure(folder: Path, rounds: int) -> Result:
    from transformers import AutoTokenizer

    records = list(make_records())
    size = sum(len(m["content"].encode()) for record in records for m in record["messages"]) / 1e6
    figures: dict[str, list[float]] = {}
    peers: dict[str, list[float]] = {}
    plain = CHATML.replace("{%- generation -%}", "").replace("{%- endgeneration -%}", "")
    for name, template in (("tagged", CHATML), ("untagged", plain)):
        write_tokenizer(folder / name, template)
        theirs, ours = AutoTokenizer.from_pretrained(str(folder / name)), ChatTokenizer.load(folder / name)
        for _ in range(rounds):
            seconds, expected = cpu(lambda: with_transformers(theirs, records, mask=name == "tagged"))  # noqa: B023
            peers.setdefault(f"transformers, {name}", []).append(size / seconds)
            fast, found = cpu(lambda: with_ours(ours, records))  # noqa: B023
            assert found == expected, "other ids than transformers gives"
            figures.setdefault(f"records to ids and mask, {name}", []).append(size / fast)
            figures.setdefault(f"times transformers, {name}", []).append(seconds / fast)
    (folder / "chats.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records * 3))
    (folder / "spec.yaml").write_text(_SPEC.format())
    job = load_job(folder / "spec.yaml", [], folder).job
    for _ in range(rounds):
        shutil.rmtree(folder / "store", ignore_errors=True)
        began = sum(os.times()[:4])  # of its processes, too
        assert prepare(job, folder / "store")
        figures.setdefault("jsonl to store", []).append(3 * size / (sum(os.times()[:4]) - began))
    rates = {name: Figure.of(values, "x" if "times" in name else "MB/s") for name, values in figures.items()}
    rates |= {f"padding at {n >> 10}k": Figure.of([padding(folder / str(n), n)], "%") for n in (8192, 32768, 131072)}
    rates_of_peers = {name: Figure.of(values, "MB/s") for name, values in peers.items()}
    return Result("chat", rates, rates_of_peers, {"padding at 8k": 2.0})


def make_records() -> list[dict[str, Any]]:
    """As many of each domain; the median question has 40 words, the median answer 110."""
    random = np.random.default_rng(0)
    texts = {
        file: "\n".join(document.text for document in read_documents(file)) for file in CORPUS.glob("corpus/*.zst")
    }
    records = []
    for number in range(CONVERSATIONS):
        text = texts[sorted(texts)[number % len(texts)]]

        def piece(median: float, text: str = text) -> str:
            count = min(int(np.exp(random.normal(np.log(median), 0.9))) + 4, 20_000)
            begin = int(random.integers(0, len(text) - count))
            return text[begin : begin + count]

        turns = int(random.integers(1, 4))
        roles = [("user", 240.0), ("assistant", 660.0)] * turns
        records.append({"messages": [{"role": role, "content": piece(median)} for role, median in roles]})
    return records


def with_transformers(tokenizer: Any, records: list[dict[str, Any]], mask: bool) -> list[list[int]]:
    return [
        tokenizer.apply_chat_template(
            record["messages"], tokenize=True, return_dict=True, return_assistant_tokens_mask=mask
        )["input_ids"]
        for record in records
    ]


def with_ours(tokenizer: ChatTokenizer, records: list[dict[str, Any]]) -> list[list[int]]:
    encoder, template, found = ChatEncoder(tokenizer, choose_engine(tokenizer)), tokenizer.templates["default"], []
    for begin in range(0, len(records), _BATCH):
        batch = [template.render(conversation_of(record), "assistant") for record in records[begin : begin + _BATCH]]
        found += [tokens.ids.tolist() for tokens in encoder.encode(batch)]
    return found


def cpu(work: Callable[[], list[list[int]]]) -> tuple[float, list[list[int]]]:
    began = time.process_time()
    found = work()
    return time.process_time() - began, found


def padding(folder: Path, seq_len: int) -> float:
    """Per cent of samples whose conversations are as long as documents of the web: median 500 tokens, mean 1,000."""
    folder.mkdir()
    lengths = np.exp(np.random.default_rng(0).normal(6.2, 1.2, size=50_000)).astype(int) + 2
    offsets = np.concatenate([[0], np.cumsum(np.minimum(lengths, seq_len))]).astype("<i8")
    offsets.tofile(folder / "offsets.bin")
    counts = Counts(records=len(lengths), tokens=int(offsets[-1]), longest=int(lengths.max().clip(max=seq_len)))
    source = Source(folder, SourceMeta(split="train", name="a", counts=counts), "uint16", 1, 0)
    samples = ChatSamples([Weighted(source)], seq_len, 0, "benchmark")
    return 100 * (1 - sum(samples.taken(samples.num_samples).values()) / (samples.num_samples * seq_len))


def write_tokenizer(folder: Path, template: str) -> None:
    import tokenizers

    folder.mkdir()
    tokenizer = tokenizers.Tokenizer.from_file(str(CORPUS / "tokenizer.json"))
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    (folder / "chat_template.jinja").write_text(template)


if __name__ == "__main__":
    main()
