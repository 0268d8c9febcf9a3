"""The folder that post-training is measured on: a small model, a chat tokenizer, conversations, pairs and prompts.

Texts are real (those of the tiny store), cut into questions and answers whose lengths are as those of chat data are:
many short ones, a few long ones. Nobody has to learn anything from them. The model has random weights, but that a
sampled token ends its answer about once in 45 times, or never, whatever came before.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT

MODEL = {
    "name": "small", "dim": 256, "num_layers": 6, "num_heads": 4, "num_kv_heads": 2, "ffn_dim": 768, "vocab_size": 4160,
}  # fmt: skip
SEQ_LEN = 512
THETA = 1e4
_QUESTION, _ANSWER = (40, 0.7), (70, 0.9)  # median tokens, and the standard deviation of their logarithm
_OFFSET, _END = 16, 0.11  # dimensions that all embeddings have alike, and what the end of an answer weighs there
_SHORTEST, _LONGEST = 6, 224  # so that both answers of a pair with their questions fit into SEQ_LEN


def write_folder(folder: Path, num_records: int, ends: bool) -> None:
    """`hf` (model and tokenizer) and sft.jsonl, dpo.jsonl, grpo.jsonl. `ends`: whether the model ends its answers."""
    import tokenizers

    from xgen.data import TokenStore

    tokenizer = tokenizers.Tokenizer.from_file(str(ROOT / ".cache/tiny-store/tokenizer.json"))
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    _write_model(folder / "hf", tokenizer, ends)
    store = TokenStore.open(ROOT / ".cache/tiny-store")
    ids = [token for part in store.parts for n in range(12) for token in part.document(n)[:-1].tolist()]
    pieces = _pieces(tokenizer, ids)
    conversations, pairs, prompts = [], [], []
    for _ in range(num_records):
        asked = [{"role": "user", "content": next(pieces)(_QUESTION)}]
        better, worse = ([{"role": "assistant", "content": next(pieces)(_ANSWER)}] for _ in range(2))
        conversations.append({"messages": asked + better})
        pairs.append({"prompt": asked, "chosen": better, "rejected": worse})
        prompts.append({"prompt": asked, "answer": "1"})
    for name, records in (("sft", conversations), ("dpo", pairs), ("grpo", prompts)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def _pieces(tokenizer: Any, ids: list[int]) -> Iterator[Any]:
    """Functions that cut a text of about the wanted length."""
    pick, at = random.Random(0), 0

    def cut(wanted: tuple[int, float]) -> str:
        nonlocal at
        median, spread = wanted
        length = min(max(_SHORTEST, round(median * pick.lognormvariate(0, spread))), _LONGEST)
        at = (at + length) % (len(ids) - _LONGEST)
        return str(tokenizer.decode(ids[at - length : at] if at >= length else ids[at : at + length])).strip() or "so"

    while True:
        yield cut


def _write_model(folder: Path, tokenizer: Any, ends: bool) -> None:
    import torch

    from xgen.data.chat.template import CHATML
    from xgen.model.hf import Context, config_json, hf_name, parameter_shapes
    from xgen.model.shards import write_shards
    from xgen.spec import ModelSpec

    folder.mkdir(parents=True)
    spec = ModelSpec.model_validate(MODEL)
    end = tokenizer.token_to_id("<|im_end|>")
    context = Context(SEQ_LEN, THETA, None, "float32", eos=end, pad=0)
    (folder / "config.json").write_text(json.dumps(config_json(spec, context)))
    torch.manual_seed(0)
    shapes = {hf_name(name): shape for name, shape in parameter_shapes(spec).items()}

    def read(name: str) -> torch.Tensor:
        shape = shapes[name]
        drawn = torch.ones(shape) if len(shape) == 1 else 0.02 * torch.randn(shape)
        if name == "model.embed_tokens.weight":
            drawn[:, :_OFFSET] = 1.0
        elif name == "lm_head.weight":
            drawn[end, :_OFFSET] = _END if ends else -1.0
        return drawn

    write_shards(folder, shapes, torch.float32, read)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast", "chat_template": CHATML, "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>", "model_max_length": SEQ_LEN,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
