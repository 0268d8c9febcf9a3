"""The models that can be trained, by name. Llama type: RMSNorm, RoPE, grouped-query attention, SwiGLU."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from xgen.spec.base import Count, Number, Strict, nearest


class ModelSpec(Strict):
    """Sizes of a decoder. `ffn_dim` is the width of the SwiGLU hidden layer."""

    name: str
    dim: Count = Field(gt=0)
    num_layers: Count = Field(gt=0)
    num_heads: Count = Field(gt=0)
    num_kv_heads: Count = Field(gt=0)
    ffn_dim: Count = Field(gt=0)
    vocab_size: Count = Field(gt=0)
    norm_eps: Number = Field(default=1e-5, gt=0)
    qk_norm: bool = Field(default=False, description="RMSNorm of queries and keys, per head (arXiv 2302.05442)")

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value not in MODELS:
            raise ValueError(f"{value!r} is no known model; {nearest(value, MODELS)}")
        return MODELS[value]

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.dim % self.num_heads or self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"{self.num_heads} heads must divide dim {self.dim}, "
                f"and {self.num_kv_heads} KV heads must divide {self.num_heads} heads"
            )
        return self

    def difference(self, other: ModelSpec) -> str:
        """The first key in which the two are no models of the same weights; '' where there is none."""
        keys = (key for key in ModelSpec.model_fields if key != "name")
        return next((key for key in keys if getattr(self, key) != getattr(other, key)), "")

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads

    @property
    def num_parameters(self) -> int:
        """Embedding and output weights are untied; norms included, no biases."""
        head_dim = self.head_dim
        attention = 2 * self.dim * self.dim + 2 * self.dim * self.num_kv_heads * head_dim
        norms = 2 * self.dim + (2 * head_dim if self.qk_norm else 0)
        layer = attention + 3 * self.dim * self.ffn_dim + norms
        return self.num_layers * layer + 2 * self.vocab_size * self.dim + self.dim

    def flops_per_token(self, seq_len: int) -> int:
        """Forward and backward, what is computed again not counted: 6 a parameter that is multiplied, which the
        embedding is not, and 6 x layers x dim x length for causal attention (PaLM, arXiv 2204.02311, appendix B,
        halved for the mask)."""
        multiplied = self.num_parameters - self.vocab_size * self.dim
        return 6 * multiplied + 6 * self.num_layers * self.dim * seq_len


MODELS: dict[str, dict[str, Any]] = {
    "tiny": {
        "name": "tiny",
        "dim": 128,
        "num_layers": 4,
        "num_heads": 4,
        "num_kv_heads": 2,
        "ffn_dim": 352,
        "vocab_size": 4096,
    },
    # Sizes of ours; docs/recipes.md says why.
    "xgen-4b": {
        "name": "xgen-4b",
        "dim": 3072,
        "num_layers": 32,
        "num_heads": 24,
        "num_kv_heads": 8,
        "ffn_dim": 9216,
        "vocab_size": 102400,
    },
    "xgen-9b": {
        "name": "xgen-9b",
        "dim": 4096,
        "num_layers": 38,
        "num_heads": 32,
        "num_kv_heads": 8,
        "ffn_dim": 14336,
        "vocab_size": 102400,
    },
}
