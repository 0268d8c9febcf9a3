"""Tokenizers and conversations for tests, made here."""

# ruff: noqa: RUF001 - the bars in the tokens of DeepSeek are wide ones

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from xgen.data.tokenizer import Tokenizer
from xgen.spec import Preference, Rl, Sft, load_job

TEMPLATES = Path(__file__).parent / "templates"
WORDS = (
    "the quick brown fox asks how many apples are left over when seven of twelve were eaten by a hungry bear; "
    "zażółć gęślą jaźń, 你好 🎉 and naïve café. def add(a, b):\n    return a + b\n\n1 + 2 = 3, 40 - 17 = 23? It is.\n"
)
SPECIAL = {
    "chatml_tools": ("<|im_start|>", "<|im_end|>"),
    "llama3": ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "mistral": ("<s>", "</s>"),
    "deepseek": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    "gemma": ("<bos>", "<start_of_turn>", "<end_of_turn>"),
    "thinking": ("<|im_start|>", "<|im_end|>"),
}
ADDED = {
    "chatml_tools": ("<tool_call>", "</tool_call>"),
    "mistral": ("[INST]", "[/INST]"),
    "deepseek": ("<｜User｜>", "<｜Assistant｜>"),
    "thinking": ("<think>", "</think>"),
}
BOS_EOS = {
    "llama3": ("<|begin_of_text|>", "<|eot_id|>"),
    "mistral": ("<s>", "</s>"),
    "deepseek": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    "gemma": ("<bos>", "<end_of_turn>"),
}


@cache
def _byte_level() -> str:
    return Tokenizer.train([WORDS] * 20, 380).to_json()


@cache
def _with_metaspace() -> str:
    """As Llama 2 and Mistral have it: a space is put before a text, bytes stand in for unknown characters."""
    made = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    by_bytes = [f"<0x{byte:02X}>" for byte in range(256)]
    made.train_from_iterator([WORDS] * 20, trainers.BpeTrainer(vocab_size=500, show_progress=False))
    model = json.loads(made.to_str())
    vocab = model["model"]["vocab"]
    for token in ["<unk>", *by_bytes]:
        vocab.setdefault(token, len(vocab))
    return json.dumps(model)


def write_tokenizer(
    folder: Path,
    template: str | None = None,
    special: Sequence[str] = ("<|im_start|>", "<|im_end|>"),
    added: Sequence[str] = (),
    kind: str = "byte-level",
    **config: Any,
) -> Path:
    """A folder as transformers' AutoTokenizer and ChatTokenizer load it."""
    folder.mkdir(parents=True, exist_ok=True)
    made = tokenizers.Tokenizer.from_str(_with_metaspace() if kind == "metaspace" else _byte_level())
    if kind == "nfc":
        made.normalizer = normalizers.NFC()
    if kind == "digits":
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    made.add_special_tokens(list(special))
    made.add_tokens(list(added))
    made.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder


def write_known(folder: Path, name: str, kind: str = "byte-level") -> Path:
    """A tokenizer with one of `TEMPLATES`."""
    bos, eos = BOS_EOS.get(name, ("", "<|im_end|>"))
    config = {"eos_token": eos, **({"bos_token": bos} if bos else {})}
    source = (TEMPLATES / f"{name}.jinja").read_text()
    return write_tokenizer(folder, source, SPECIAL[name], ADDED.get(name, ()), kind, **config)


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def system(content: str) -> dict[str, Any]:
    return {"role": "system", "content": content}


def write_lines(path: Path, records: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
    return path


_HEAD = """
name: made
init: before
model: {name: made, dim: 32, num_layers: 1, num_heads: 2, num_kv_heads: 2, ffn_dim: 64, vocab_size: 512}
resources: {partition: p, nodes: 1, gpus_per_node: 1, cpus_per_task: 1, memory: 1GB, time: 10m}
"""


def job(folder: Path, body: str, *changes: str) -> Any:
    """The job of a spec with `body`; paths begin at `folder`."""
    file = folder / "spec.yaml"
    file.write_text(_HEAD + body)
    return load_job(file, list(changes), folder).job


def sft(folder: Path, *changes: str, sources: str = "{a: a.jsonl}") -> Sft:
    body = f"""
kind: sft
data: {{tokenizer: tokenizer, sources: {sources}, out: store}}
train: {{steps: 10, sequences: 4, seq_len: 64, lr: {{peak: 1e-4}}}}
"""
    made: Sft = job(folder, body, *changes)
    return made


def preference(folder: Path, *changes: str, sources: str = "{a: a.jsonl}") -> Preference:
    body = f"""
kind: preference
data: {{tokenizer: tokenizer, sources: {sources}, out: store}}
train: {{steps: 10, sequences: 4, seq_len: 128, lr: {{peak: 1e-4}}}}
"""
    made: Preference = job(folder, body, *changes)
    return made


def rl(folder: Path, *changes: str, sources: str = "{a: a.jsonl}") -> Rl:
    body = f"""
kind: rl
prompts: {{tokenizer: tokenizer, sources: {sources}, max_tokens: 32}}
rollout: {{prompts: 4, max_tokens: 32}}
rewards: {{'*': {{kind: exact}}}}
train: {{steps: 10, sequences: 4, seq_len: 64, lr: {{peak: 1e-4}}}}
"""
    made: Rl = job(folder, body, *changes)
    return made
