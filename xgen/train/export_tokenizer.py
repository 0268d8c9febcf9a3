"""The tokenizer of an exported model: one that encodes text and conversations as the training did."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from xgen.data.chat.tokenizer import ChatTokenizer
from xgen.data.errors import StoreError
from xgen.data.meta import TOKENIZER_FILE
from xgen.data.tokenizer import END_OF_TEXT, Tokenizer
from xgen.runs import Refused
from xgen.spec import Preference, Pretrain, Rl, Sft, Trained


@dataclass(frozen=True)
class ExportTokenizer:
    """`text` is the tokenizer.json to write; `ends` are the ids that end a document or an answer."""

    place: Path
    text: str
    vocab_size: int
    ends: tuple[int, ...]
    pad_id: int
    variables: Mapping[str, str]  # eos_token, pad_token and others that the templates are given
    templates: Mapping[str, str] = field(default_factory=dict)  # chat templates by name

    @property
    def content(self) -> str:
        """All that the ids of a conversation follow from."""
        return "".join([self.text, *self.templates.values()])


def read_tokenizer(job: Trained, given: Path | None) -> ExportTokenizer:
    """The `given` file, that of a given folder, or that of the run's data. Raises Refused."""
    try:
        match job:
            case Pretrain():
                found = _of_stores(job, given)
            case Sft() | Preference():
                found = _of_chat(given or Path(job.data.tokenizer), job.data.template)
            case Rl():
                found = _of_chat(given or Path(job.prompts.tokenizer), job.prompts.template)
            case _:
                raise AssertionError(f"{type(job).__name__} trains on no text")
    except StoreError as error:
        raise Refused(f"tokenizer: {error}") from None
    if found.vocab_size > job.model.vocab_size:
        raise Refused(
            f"tokenizer: {found.place} has {found.vocab_size} tokens, and the model {job.model.vocab_size}; "
            "write the one that the run was trained with"
        )
    return found


def _of_stores(job: Pretrain, given: Path | None) -> ExportTokenizer:
    if given is None:
        files = [Path(folder) / TOKENIZER_FILE for folder in job.data.folders.values()]
    else:
        files = [given / TOKENIZER_FILE if given.is_dir() else given]
    loaded = [Tokenizer.load(file) for file in files]
    texts = {file.read_text(encoding="utf-8") for file in files}
    if len(texts) > 1:
        raise Refused(f"tokenizer: that of {files[0]} is not that of the other stores; write the file that is right")
    text, end = texts.pop(), loaded[0].end_of_text
    padding = json.loads(text).get("padding") or {"pad_token": END_OF_TEXT, "pad_id": end}
    names = {"eos_token": END_OF_TEXT, "pad_token": padding["pad_token"]}
    return ExportTokenizer(files[0], _as_trained(text), loaded[0].vocab_size, (end,), padding["pad_id"], names)


def _of_chat(place: Path, template: str | None) -> ExportTokenizer:
    loaded = ChatTokenizer.load(place, template)
    tokens = {number: token for token, number in loaded.added.items()}
    if not loaded.stop:
        what = "has no token that ends an answer: neither the chat template nor eos_token names one"
        raise StoreError(loaded.place, what, "write eos_token in tokenizer_config.json")
    names = {"eos_token": tokens[loaded.stop[0]], **loaded.variables}
    names = {"pad_token": names["eos_token"], **names}
    pad = loaded.backend.token_to_id(names["pad_token"])
    templates = {name: made.source for name, made in loaded.templates.items()}
    text, pad_id = _as_trained(loaded.document), loaded.stop[0] if pad is None else pad
    return ExportTokenizer(loaded.place, text, loaded.vocab_size, loaded.stop, pad_id, names, templates)


def _as_trained(text: str) -> str:
    """The training encodes text and nothing else: a post-processor that would add tokens is left out."""
    import tokenizers

    if tokenizers.Tokenizer.from_str(text).encode("", add_special_tokens=True).ids:
        return json.dumps(json.loads(text) | {"post_processor": None}, ensure_ascii=False, indent=2)
    return text
