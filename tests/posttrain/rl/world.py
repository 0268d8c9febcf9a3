"""Sums of one digit each, a tokenizer of bytes, and a model that has the form of an answer and little of its sense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

EOS = "<|im_end|>"
# Turns without any words around them: the questions are short, and so are the tests.
TEMPLATE = (
    "{%- for message in messages -%}{{ message['content'] }}"
    "{%- if message['role'] == 'assistant' -%}<|im_end|>{%- endif -%}{%- endfor -%}"
)
VOCAB = 288
MODEL = {
    "name": "nano", "dim": 64, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "ffn_dim": 128, "vocab_size": VOCAB,
}  # fmt: skip
HELD_OUT = 5  # every such sum


def questions(held_out: bool) -> list[tuple[str, str]]:
    pairs = [(a, b) for a in range(10) for b in range(10) if a + b < 10]
    return [
        (f"{a}+{b}=", str(a + b)) for number, (a, b) in enumerate(pairs) if (number % HELD_OUT == 0) == held_out
    ]


def make_tokenizer(folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(EOS), AddedToken("<|im_start|>")])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": EOS, "chat_template": TEMPLATE}))


def make_prompts(folder: Path) -> None:
    for name, held_out in (("sums", False), ("held-out", True)):
        lines = [json.dumps({"prompt": text, "answer": answer}) for text, answer in questions(held_out)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


def make_model(folder: Path, steps: int = 150) -> None:
    """A Llama that answers with a digit and stops: the right one in about a fifth of all cases."""
    from tokenizers import Tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=128,
        vocab_size=VOCAB, max_position_embeddings=64, rope_theta=1e4, tie_word_embeddings=False, rms_norm_eps=1e-5,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    eos, asked = tokenizer.token_to_id(EOS), questions(held_out=False) + questions(held_out=True)
    for _ in range(steps):
        picked = [asked[i] for i in torch.randint(len(asked), (64,)).tolist()]
        said = [answer if torch.rand(()) < 0.1 else str(int(torch.randint(10, ()))) for _, answer in picked]
        rows = torch.tensor(
            [[*tokenizer.encode(text + digit).ids, eos] for (text, _), digit in zip(picked, said, strict=True)]
        )
        labels = rows.clone()
        labels[:, :4] = -100
        loss = model(rows, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)


def make_world(folder: Path) -> None:
    make_tokenizer(folder)
    make_prompts(folder)
    make_model(folder)


def spec(folder: Path) -> dict[str, Any]:
    return {
        "kind": "rl",
        "name": "sums",
        "resources": {"nodes": 1, "gpus_per_node": 1, "time": "10m"},
        "lead": "30s",
        "model": MODEL,
        "init": {"hf": str(folder)},
        "train": {"steps": 6, "sequences": 8, "seq_len": 64, "lr": {"peak": 2e-3}},
        "optimizer": {"weight_decay": 0.0},
        "prompts": {"tokenizer": str(folder), "sources": {"sums": str(folder / "sums.jsonl")}, "max_tokens": 8},
        "rollout": {"prompts": 8, "group": 8, "max_tokens": 4},
        "rewards": {"*": {"kind": "exact"}},
        "verification": {"workers": 1},
        "evaluation": {"sources": {"held-out": str(folder / "held-out.jsonl")}, "every": 100, "samples": 1},
        "checkpoint": {"every": 2, "keep": 3, "mode": "sync"},
        "samples_every": 2,
        "deterministic": True,
    }
