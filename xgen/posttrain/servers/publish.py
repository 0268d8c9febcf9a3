"""Writing weights for the servers: tensor by tensor into a folder that is renamed when it is whole."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import torch

from xgen.model.hf import Context, config_json, hf_name, parameter_shapes, to_hf
from xgen.model.shards import ShardFiles
from xgen.posttrain.servers.weights import current, point_to, version_of, weights_dir
from xgen.runs import RunDir
from xgen.spec import ModelSpec, Rl

Dtype = Literal["bfloat16", "float32"]
KEPT = 2  # the folder that counts, and the one that servers may still be reading


def publish(run: RunDir, job: Rl, version: int, weights: Iterable[tuple[str, torch.Tensor]], dtype: Dtype) -> str:
    """Write all weights, by torchtitan's names in any order, and let them count. Returns the folder's name."""
    folder = weights_dir(run)
    folder.mkdir(exist_ok=True)
    for left in folder.glob(".v*.tmp"):
        shutil.rmtree(left)
    name = f"v{version}-{secrets.token_hex(4)}"
    building = folder / f".{name}.tmp"
    building.mkdir()
    try:
        _write(building, job, weights, dtype)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    building.rename(folder / name)
    before = current(run)
    point_to(run, name)
    _prune(folder, {name, before})
    return name


def _write(building: Path, job: Rl, weights: Iterable[tuple[str, torch.Tensor]], dtype: Dtype) -> None:
    model = job.model
    shapes = {hf_name(name): shape for name, shape in parameter_shapes(model).items()}
    with ShardFiles(building, shapes, getattr(torch, dtype)) as files:
        for name, tensor in weights:
            files.write(hf_name(name), to_hf(name, tensor, model))
    context = Context(job.train.seq_len, job.train.rope_theta, job.train.rope_scaling, dtype, eos=None)
    _write_json(building / "config.json", config_json(model, context))
    _write_json(building / "tokenizer.json", _numbers(model))
    _write_json(
        building / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": job.train.seq_len,
            "clean_up_tokenization_spaces": False,
        },
    )


def _numbers(model: ModelSpec) -> dict[str, Any]:
    """A tokenizer whose words are the numbers of the tokens, with nothing that is special."""
    vocabulary = {str(token): token for token in range(model.vocab_size)}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "0"},
    }


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content) + "\n", encoding="utf-8")


def _prune(folder: Path, kept: set[str | None]) -> None:
    for old in folder.iterdir():
        if version_of(old.name) is not None and old.name not in kept:
            shutil.rmtree(old, ignore_errors=True)  # a server that reads it takes the one that counts
