"""Hugging Face's names, layout and config.json for our models, and back. No transformers needed: tests hold both equal.

A model is a `LlamaForCausalLM`, or with `qk_norm` a `Qwen3ForCausalLM`, which is Llama with those norms. Both keep the
halves of each rotated pair apart, where torchtitan has them side by side: rows of q and k change places, and with them
what norms them per head.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from xgen.spec import ModelSpec, RopeScaling

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"

_TO_HF = {
    "tok_embeddings.weight": "model.embed_tokens.weight",
    "layers.{}.attention_norm.weight": "model.layers.{}.input_layernorm.weight",
    "layers.{}.attention.qkv_linear.wq.weight": "model.layers.{}.self_attn.q_proj.weight",
    "layers.{}.attention.qkv_linear.wk.weight": "model.layers.{}.self_attn.k_proj.weight",
    "layers.{}.attention.qkv_linear.wv.weight": "model.layers.{}.self_attn.v_proj.weight",
    "layers.{}.attention.q_norm.weight": "model.layers.{}.self_attn.q_norm.weight",
    "layers.{}.attention.k_norm.weight": "model.layers.{}.self_attn.k_norm.weight",
    "layers.{}.attention.wo.weight": "model.layers.{}.self_attn.o_proj.weight",
    "layers.{}.ffn_norm.weight": "model.layers.{}.post_attention_layernorm.weight",
    "layers.{}.feed_forward.w1.weight": "model.layers.{}.mlp.gate_proj.weight",
    "layers.{}.feed_forward.w3.weight": "model.layers.{}.mlp.up_proj.weight",
    "layers.{}.feed_forward.w2.weight": "model.layers.{}.mlp.down_proj.weight",
    "norm.weight": "model.norm.weight",
    "lm_head.weight": "lm_head.weight",
}
_LAYER = re.compile(r"^layers\.(\d+)")
_ROTATED = re.compile(r"\.attention\.(qkv_linear\.w[qk]|[qk]_norm)\.weight$")
_ARCHITECTURES = {False: ("LlamaForCausalLM", "llama"), True: ("Qwen3ForCausalLM", "qwen3")}  # by qk_norm


class HuggingFaceError(Exception):
    """A folder that cannot be imported: names the file, what is wrong with it, and what to do."""

    def __init__(self, place: Path, what: str, fix: str) -> None:
        super().__init__(f"{place}: {what}; {fix}")


@dataclass(frozen=True)
class Context:
    """What config.json says beside the model's sizes: how positions turn, and the tokens with a meaning."""

    seq_len: int
    rope_theta: float
    rope_scaling: RopeScaling | None
    dtype: str  # of the tensors, as torch names it
    eos: int | None
    pad: int | None = None


def parameter_shapes(model: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Every parameter by torchtitan's name, in the order of the forward pass, as a checkpoint has it: q, k and v are
    one matrix in the model, and three there."""
    dim, kv_dim = model.dim, model.num_kv_heads * model.head_dim
    shapes: dict[str, tuple[int, ...]] = {"tok_embeddings.weight": (model.vocab_size, dim)}
    of_layer: dict[str, tuple[int, ...]] = {
        "attention_norm": (dim,),
        "attention.qkv_linear.wq": (dim, dim),
        "attention.qkv_linear.wk": (kv_dim, dim),
        "attention.qkv_linear.wv": (kv_dim, dim),
        "attention.wo": (dim, dim),
        "ffn_norm": (dim,),
        "feed_forward.w1": (model.ffn_dim, dim),
        "feed_forward.w3": (model.ffn_dim, dim),
        "feed_forward.w2": (dim, model.ffn_dim),
    }
    if model.qk_norm:
        of_layer |= {"attention.q_norm": (model.head_dim,), "attention.k_norm": (model.head_dim,)}
    for layer in range(model.num_layers):
        shapes |= {f"layers.{layer}.{name}.weight": shape for name, shape in of_layer.items()}
    return shapes | {"norm.weight": (dim,), "lm_head.weight": (model.vocab_size, dim)}


def hf_name(name: str) -> str:
    """Hugging Face's name of a parameter."""
    layer = _LAYER.match(name)
    return _TO_HF[_LAYER.sub("layers.{}", name)].format(layer[1] if layer else "")


def to_hf(name: str, tensor: torch.Tensor, model: ModelSpec) -> torch.Tensor:
    """A parameter in Hugging Face's layout."""
    if not _ROTATED.search(name):
        return tensor
    return tensor.view(-1, model.head_dim // 2, 2, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


def from_hf(name: str, tensor: torch.Tensor, model: ModelSpec) -> torch.Tensor:
    """The inverse of `to_hf`; `name` is torchtitan's here too."""
    if not _ROTATED.search(name):
        return tensor
    return tensor.view(-1, 2, model.head_dim // 2, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


def config_json(model: ModelSpec, context: Context) -> dict[str, Any]:
    """config.json, for transformers 5 and for what reads its older form."""
    architecture, model_type = _ARCHITECTURES[model.qk_norm]
    rope = _rope_parameters(context)
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": model.vocab_size,
        "hidden_size": model.dim,
        "intermediate_size": model.ffn_dim,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_heads,
        "num_key_value_heads": model.num_kv_heads,
        "head_dim": model.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": context.seq_len,
        "rms_norm_eps": model.norm_eps,
        "rope_parameters": rope,
        # Before transformers 5 the two stood here; a reader that knew only them would turn positions by its default.
        "rope_theta": context.rope_theta,
        "rope_scaling": rope if context.rope_scaling else None,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": False,
        "bos_token_id": None,  # no document of the training begins with one
        "eos_token_id": context.eos,
        "pad_token_id": context.pad,
        "initializer_range": 0.02,
        "use_cache": True,
        "dtype": context.dtype,
    } | ({} if model.qk_norm else {"mlp_bias": False})


def _rope_parameters(context: Context) -> dict[str, Any]:
    scaling = context.rope_scaling
    if scaling is None:
        return {"rope_theta": context.rope_theta, "rope_type": "default"}
    return {
        "rope_theta": context.rope_theta,
        "rope_type": "yarn",
        "factor": scaling.factor,
        "original_max_position_embeddings": scaling.original,
        "beta_fast": scaling.beta_fast,
        "beta_slow": scaling.beta_slow,
        # Without it transformers would scale the attention by 0.1 ln(factor) + 1, which the training does not.
        "attention_factor": 1.0,
    }


class HuggingFaceWeights:
    """A Hugging Face folder with one of the two architectures, read one tensor at a time: torchtitan's names and
    layout, the files' dtype, every value bit for bit. The model has the folder's name."""

    def __init__(self, folder: Path) -> None:
        """Looks at names and shapes. Raises HuggingFaceError."""
        self.model = _read_config(folder / "config.json", folder.name)
        shapes = {hf_name(name): (name, shape) for name, shape in parameter_shapes(self.model).items()}
        self.files = _weight_files(folder)
        self._place: dict[str, tuple[Path, str]] = {}
        for file in self.files:
            with _opened(file) as opened:
                for found in opened.keys():  # noqa: SIM118 - no mapping
                    if found not in shapes:
                        what = f"has {found}, which a {self.model.num_layers}-layer model has not"
                        raise HuggingFaceError(file, what, "check config.json")
                    name, shape = shapes[found]
                    if (there := opened.get_slice(found).get_shape()) != list(shape):
                        what = f"{found} is {there}, and config.json makes it {list(shape)}"
                        raise HuggingFaceError(file, what, "take the config.json that belongs to it")
                    self._place[name] = file, found
        if missing := [own for own, (name, _) in shapes.items() if name not in self._place]:
            raise HuggingFaceError(folder, f"lacks {len(missing)} tensors, {missing[0]} first", "fetch it again")

    def read(self, name: str, dtype: torch.dtype | None = None) -> torch.Tensor:
        """A parameter by torchtitan's name, in `dtype` or that of the file. Raises HuggingFaceError."""
        file, found = self._place[name]
        with _opened(file) as opened:
            return from_hf(name, opened.get_tensor(found).to(dtype), self.model)


def import_hf(folder: Path) -> tuple[ModelSpec, dict[str, torch.Tensor]]:
    """All of it at once. Raises HuggingFaceError."""
    weights = HuggingFaceWeights(folder)
    return weights.model, {name: weights.read(name) for name in parameter_shapes(weights.model)}


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        with safe_open(file, framework="pt") as opened:
            yield opened
    except (OSError, SafetensorError) as error:
        raise HuggingFaceError(file, f"cannot be read: {error}", "fetch it again") from None


def _weight_files(folder: Path) -> list[Path]:
    if not (folder / INDEX).is_file():
        return [folder / SINGLE]
    files = set(_read_json(folder / INDEX, lambda content: content["weight_map"].values()))
    return [folder / name for name in sorted(files)]


def _read_json(file: Path, take: Callable[[Any], Any]) -> Any:
    try:
        return take(json.loads(file.read_bytes()))
    except OSError as error:
        raise HuggingFaceError(file, error.strerror or str(error), "name a folder with a model") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HuggingFaceError(file, f"cannot be read: {error!r}", "fetch it again") from None


def _read_config(file: Path, name: str) -> ModelSpec:
    config: Mapping[str, Any] = _read_json(file, dict)
    known = {architecture: qk_norm for qk_norm, (architecture, _) in _ARCHITECTURES.items()}
    architecture = (config.get("architectures") or ["no architecture"])[0]
    if architecture not in known:
        raise HuggingFaceError(file, f"{architecture} is none that can be imported", f"name one of {', '.join(known)}")
    # Absent is what transformers takes for absent.
    unlike = {"attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False, "hidden_act": "silu"}
    for key, value in unlike.items():
        if config.get(key, value) != value:
            raise HuggingFaceError(file, f"{key} is {config[key]!r}, and our models have {value!r}", "name another")
    if config.get("use_sliding_window"):
        raise HuggingFaceError(file, "use_sliding_window is true, and our models see all", "name another")
    try:
        model = ModelSpec(
            name=name,
            dim=config["hidden_size"],
            num_layers=config["num_hidden_layers"],
            num_heads=config["num_attention_heads"],
            num_kv_heads=config.get("num_key_value_heads") or config["num_attention_heads"],
            ffn_dim=config["intermediate_size"],
            vocab_size=config["vocab_size"],
            norm_eps=config.get("rms_norm_eps", 1e-6),
            qk_norm=known[architecture],
        )
    except (KeyError, ValidationError) as error:
        said = f"has no {error}" if isinstance(error, KeyError) else error.errors()[0]["msg"]
        raise HuggingFaceError(file, said, "take the config.json that belongs to the weights") from None
    default = 128 if model.qk_norm else model.head_dim
    if (head_dim := config.get("head_dim") or default) != model.head_dim:
        what = f"head_dim is {head_dim}, and our models have hidden_size / num_attention_heads = {model.head_dim}"
        raise HuggingFaceError(file, what, "name another")
    return model
