"""The files of an export: weights out of the checkpoint, tensor by tensor, config, tokenizer and model card."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader

from xgen.data.errors import StoreError
from xgen.data.meta import TOKENIZER_FILE
from xgen.data.tokenizer import END_OF_TEXT, Tokenizer
from xgen.model.hf import Context, config_json, hf_name, parameter_shapes, to_hf
from xgen.model.shards import write_shards
from xgen.runs import Refused, RunDir
from xgen.spec import ModelSpec, Pretrain
from xgen.train.card import model_card, provenance_of
from xgen.train.ckpt_admin import Tick
from xgen.train.manifest import Manifest

Dtype = Literal["bfloat16", "float32"]
Show = Callable[[str], AbstractContextManager[Tick]]  # says that a part of the work begins; its tick gets bytes so far


@dataclass(frozen=True)
class ExportTokenizer:
    """`text` is the tokenizer.json to write: one that encodes text as the training did."""

    text: str
    end_of_text: int
    pad: str
    pad_id: int


@dataclass(frozen=True)
class Source:
    """A verified checkpoint, and what it goes with."""

    run: RunDir
    job: Pretrain
    manifest: Manifest
    folder: Path
    tokenizer: ExportTokenizer


def read_tokenizer(job: Pretrain, given: Path | None) -> ExportTokenizer:
    """The `given` file, that of a given folder, or that of the run's stores. Raises Refused."""
    if given is None:
        files = [Path(folder) / TOKENIZER_FILE for folder in job.data.folders.values()]
    else:
        files = [given / TOKENIZER_FILE if given.is_dir() else given]
    try:
        loaded = [Tokenizer.load(file) for file in files]
    except StoreError as error:
        raise Refused(f"tokenizer: {error}") from None
    texts = {file.read_text(encoding="utf-8") for file in files}
    if len(texts) > 1:
        raise Refused(f"tokenizer: that of {files[0]} is not that of the other stores; write the file that is right")
    if loaded[0].vocab_size > job.model.vocab_size:
        raise Refused(
            f"tokenizer: {files[0]} has {loaded[0].vocab_size} tokens, and the model {job.model.vocab_size}; "
            "write the one that the run was trained with"
        )
    return _as_trained(texts.pop(), loaded[0].end_of_text)


def _as_trained(text: str, end_of_text: int) -> ExportTokenizer:
    """The training encodes text and nothing else: a post-processor that would add tokens is left out."""
    import tokenizers

    content = json.loads(text)
    if tokenizers.Tokenizer.from_str(text).encode("", add_special_tokens=True).ids:
        text = json.dumps(content | {"post_processor": None}, ensure_ascii=False, indent=2)
    padding = content.get("padding") or {"pad_token": END_OF_TEXT, "pad_id": end_of_text}
    return ExportTokenizer(text, end_of_text, padding["pad_token"], padding["pad_id"])


def write_files(building: Path, source: Source, dtype: Dtype, show: Show) -> None:
    """All that transformers reads, into an empty folder. Raises Refused when the checkpoint is not the spec's."""
    job, tokenizer = source.job, source.tokenizer
    stage = job.place_after(source.manifest.step - 1).stage
    context = Context(
        seq_len=stage.seq_len,
        rope_theta=stage.rope_theta,
        rope_scaling=stage.rope_scaling,
        dtype=dtype,
        eos=tokenizer.end_of_text,
        pad=tokenizer.pad_id,
    )
    config = config_json(job.model, context)
    (building / TOKENIZER_FILE).write_text(tokenizer.text, encoding="utf-8")
    _write_json(building / "config.json", config)
    _write_json(building / "generation_config.json", {key: config[key] for key in ("eos_token_id", "pad_token_id")})
    _write_json(
        building / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": END_OF_TEXT,
            "pad_token": tokenizer.pad,
            "model_max_length": stage.seq_len,
            "clean_up_tokenization_spaces": False,
        },
    )
    card = model_card(provenance_of(source.run, job, source.manifest), config["architectures"][0], dtype)
    (building / "README.md").write_text(card, encoding="utf-8")
    _write_weights(building, source.folder, job.model, getattr(torch, dtype), show)


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write_weights(building: Path, checkpoint: Path, model: ModelSpec, dtype: torch.dtype, show: Show) -> None:
    shapes = {hf_name(name): (name, shape) for name, shape in parameter_shapes(model).items()}
    weights = _Weights(checkpoint, model)
    with show(f"writing {model.num_parameters:,} parameters of {checkpoint}") as tick:
        done = 0

        def read(found: str) -> torch.Tensor:
            nonlocal done
            tick(done)
            name, shape = shapes[found]
            tensor = weights.read(name, shape, dtype)
            done += tensor.nbytes
            return to_hf(name, tensor, model)

        write_shards(building, {found: shape for found, (_, shape) in shapes.items()}, dtype, read)
        tick(done)


class _Weights:
    """The parameters of a checkpoint, one at a time; nothing of the optimizer is read."""

    def __init__(self, folder: Path, model: ModelSpec) -> None:
        """Raises Refused when they are not those of the model."""
        self._reader = FileSystemReader(folder)
        self._metadata = self._reader.read_metadata()
        self._reader.set_up_storage_reader(self._metadata, is_coordinator=True)
        saved = {
            name.removeprefix("model."): tuple(getattr(entry, "size", ()))
            for name, entry in self._metadata.state_dict_metadata.items()
            if name.startswith("model.")
        }
        wanted = parameter_shapes(model)
        if wrong := next((name for name in {**wanted, **saved} if wanted.get(name) != saved.get(name)), None):
            raise Refused(
                f"{folder} has {wrong} of {saved.get(wrong)}, and its spec wants {wanted.get(wrong)}: "
                "the spec is not the one that it was saved by; restore spec.yaml"
            )

    def read(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Rounded to `dtype` as it is read."""
        state = {f"model.{name}": torch.empty(shape, dtype=dtype)}
        planner = DefaultLoadPlanner(flatten_state_dict=False)
        planner.set_up_planner(state, self._metadata, is_coordinator=True)
        self._reader.read_data(planner.create_local_plan(), planner).wait()
        return state[f"model.{name}"]
