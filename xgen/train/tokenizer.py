"""torchtitan's trainer wants a tokenizer; ours reads token stores, which hold ids already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torchtitan.components.tokenizer import BaseTokenizer


class NoTokenizer(BaseTokenizer):
    @dataclass(kw_only=True, slots=True)
    class Config(BaseTokenizer.Config):
        pass

    def __init__(self, config: Config, **_: Any) -> None:
        super().__init__()
        del config

    def encode(self, *_args: Any, **_kwargs: Any) -> list[int]:
        raise AssertionError("training reads token ids")

    def decode(self, *_args: Any, **_kwargs: Any) -> str:
        raise AssertionError("training reads token ids")

    def get_vocab_size(self) -> int:
        raise AssertionError("the model spec has the vocabulary's size")
