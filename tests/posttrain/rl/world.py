"""Sums of one digit each, a tokenizer of bytes, and a model that has the form of an answer and little of its sense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from tests.model.parity import titan
from xgen.model.hf import Context, config_json, hf_name, parameter_shapes, to_hf
from xgen.spec import ModelSpec

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
HABITS = (0.45, 0.4, 0.15)  # the first number, the second, their sum
_ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
END = len(_ALPHABET)  # id of EOS


def questions(held_out: bool) -> list[tuple[str, str]]:
    pairs = [(a, b) for a in range(10) for b in range(10) if a + b < 10]
    return [(f"{a}+{b}=", str(a + b)) for number, (a, b) in enumerate(pairs) if (number % HELD_OUT == 0) == held_out]


def byte(letter: str) -> int:
    return _ALPHABET.index(letter)


def make_tokenizer(folder: Path) -> None:
    vocab = {letter: number for number, letter in enumerate(_ALPHABET)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
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


def make_model(folder: Path, steps: int = 400) -> None:
    """A model that mostly repeats one of the two numbers, and adds them up now and then."""
    spec = ModelSpec.model_validate(MODEL)
    model: Any = titan(spec, seq_len=64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    asked = questions(held_out=False) + questions(held_out=True)
    prompts = torch.tensor([list(map(byte, text)) for text, _ in asked])
    said = torch.tensor([[byte(text[0]), byte(text[2]), byte(answer)] for text, answer in asked])
    positions = torch.arange(5, dtype=torch.int32).expand(64, -1)
    masks = model.get_attention_masks(positions)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        picked = torch.randint(len(asked), (64,), generator=generator)
        habit = torch.multinomial(torch.tensor(HABITS), 64, replacement=True, generator=generator)
        answer = said[picked, habit][:, None]
        logits = model(torch.cat([prompts[picked], answer], dim=1), positions, masks)[:, 3:]
        labels = torch.cat([answer, torch.full_like(answer, END)], dim=1)
        loss: Any = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    state = model.state_dict()
    tensors = {hf_name(name): to_hf(name, state[name], spec).contiguous() for name in parameter_shapes(spec)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config_json(spec, Context(64, 1e4, None, "float32", END))))


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
