from __future__ import annotations

from pathlib import Path

import pytest
import tokenizers

from tests.evals.ruler.conftest import folder

__all__ = ["folder"]


SPECIAL = ("<|im_start|>", "<|im_end|>", "<s>")


@pytest.fixture(scope="session")
def tokenizer(folder: Path) -> tokenizers.Tokenizer:
    """One that has the tokens of chat templates, in `chat/tokenizer.json` of the folder."""
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens(list(SPECIAL))
    (folder / "chat").mkdir()
    tokenizer.save(str(folder / "chat/tokenizer.json"))
    return tokenizer


@pytest.fixture(scope="session")
def cache(folder: Path) -> Path:
    return folder / "cache"
