"""The files of an export: weights out of the checkpoint, tensor by tensor, config, tokenizer and model card."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from xgen.data.meta import TOKENIZER_FILE
from xgen.model.hf import Context, config_json, hf_name, parameter_shapes, to_hf
from xgen.model.shards import write_shards
from xgen.runs import RunDir
from xgen.spec import Trained
from xgen.train.card import model_card, provenance_of
from xgen.train.ckpt_admin import Tick
from xgen.train.export_tokenizer import ExportTokenizer
from xgen.train.manifest import Manifest
from xgen.train.weights import Weights

TEMPLATE_FILE = "chat_template.jinja"
Dtype = Literal["bfloat16", "float32"]
Show = Callable[[str], AbstractContextManager[Tick]]  # says that a part of the work begins; its tick gets bytes so far


@dataclass(frozen=True)
class Source:
    """A verified checkpoint, and what it goes with."""

    run: RunDir
    job: Trained
    manifest: Manifest
    weights: Weights
    tokenizer: ExportTokenizer


def write_files(building: Path, source: Source, dtype: Dtype, show: Show) -> None:
    """All that transformers reads, into an empty folder. Raises Refused when the checkpoint is not the spec's."""
    job, tokenizer = source.job, source.tokenizer
    stage = job.place_after(source.manifest.step - 1).stage
    context = Context(
        seq_len=stage.seq_len,
        rope_theta=stage.rope_theta,
        rope_scaling=stage.rope_scaling,
        dtype=dtype,
        eos=tokenizer.ends[0],
        pad=tokenizer.pad_id,
    )
    config = config_json(job.model, context)
    (building / TOKENIZER_FILE).write_text(tokenizer.text, encoding="utf-8")
    _write_json(building / "config.json", config)
    ends = tokenizer.ends[0] if len(tokenizer.ends) == 1 else list(tokenizer.ends)
    _write_json(building / "generation_config.json", {"eos_token_id": ends, "pad_token_id": tokenizer.pad_id})
    _write_json(building / "tokenizer_config.json", _tokenizer_config(tokenizer, stage.seq_len))
    if set(tokenizer.templates) == {"default"}:
        (building / TEMPLATE_FILE).write_text(tokenizer.templates["default"], encoding="utf-8")
    card = model_card(provenance_of(source.run, job, source.manifest), config["architectures"][0], dtype)
    (building / "README.md").write_text(card, encoding="utf-8")
    _write_weights(building, source.weights, getattr(torch, dtype), show)


def _tokenizer_config(tokenizer: ExportTokenizer, seq_len: int) -> dict[str, Any]:
    several = [{"name": name, "template": source} for name, source in tokenizer.templates.items()]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **tokenizer.variables,
        "model_max_length": seq_len,
        "clean_up_tokenization_spaces": False,
        **({"chat_template": several} if len(several) > 1 else {}),
    }


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write_weights(building: Path, weights: Weights, dtype: torch.dtype, show: Show) -> None:
    model = weights.model
    shapes = {hf_name(name): (name, shape) for name, shape in parameter_shapes(model).items()}
    with show(f"writing {model.num_parameters:,} parameters of {building.name}") as tick:
        done = 0

        def read(found: str) -> torch.Tensor:
            nonlocal done
            tick(done)
            name, _ = shapes[found]
            tensor = weights.read(name, dtype)
            done += tensor.nbytes
            return to_hf(name, tensor, model)

        write_shards(building, {found: shape for found, (_, shape) in shapes.items()}, dtype, read)
        tick(done)
