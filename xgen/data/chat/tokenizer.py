"""The tokenizer of a chat model: tokenizer.json, its special tokens, and the chat templates beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xgen.data.chat.schema import Conversation
from xgen.data.chat.template import CHATML, ChatTemplate
from xgen.data.errors import StoreError

if TYPE_CHECKING:
    import tokenizers

_FILE, _CONFIG, _NAMES, _TEMPLATE = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
_NAMED = "additional_chat_templates"  # a folder of files NAME.jinja
_VARIABLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True)
class ChatTokenizer:
    """`added`: the id of each added token, special or not; `templates`: by name, `default` for the only one."""

    place: Path
    document: str  # tokenizer.json
    backend: tokenizers.Tokenizer
    added: Mapping[str, int]
    variables: Mapping[str, str]
    templates: Mapping[str, ChatTemplate]

    @classmethod
    def load(cls, path: Path | str, template: Path | str | None = None, default: bool = True) -> ChatTokenizer:
        """`path`: a tokenizer.json, or a folder that has one. Without a template there, and without `default`, it has
        none. Raises StoreError for what is missing or broken."""
        import tokenizers

        path = Path(path)
        file = path / _FILE if path.is_dir() else path
        if not file.is_file():
            raise StoreError(file, "does not exist", "name a tokenizer.json, or a folder that has one")
        document = _read(file)
        try:
            backend = tokenizers.Tokenizer.from_str(document)
        except Exception as error:  # noqa: BLE001 - the Rust side raises plain Exception
            raise StoreError(file, f"is no tokenizer: {error}", "name a tokenizer.json") from None
        backend.no_truncation()
        backend.no_padding()
        tokens: list[dict[str, Any]] = json.loads(document).get("added_tokens", [])
        added = {token["content"]: token["id"] for token in tokens}
        config = {**_json(file.parent / _NAMES), **_json(file.parent / _CONFIG)}
        variables = {name: _content(config[name]) for name in _VARIABLES if config.get(name)}
        special = {token["content"] for token in tokens if token["special"]} | (set(variables.values()) & set(added))
        templates = {
            name: ChatTemplate(source, place, variables, special, added.keys() - special)
            for name, (source, place) in _sources(file.parent, config, template, default).items()
        }
        if missing := [token for token in ("<|im_start|>", "<|im_end|>") if token not in added]:
            for made in templates.values():
                if made.source == CHATML:
                    what = f"has no chat template, and lacks {' and '.join(missing)} of the default one (ChatML)"
                    raise StoreError(file.parent, what, "write template: FILE.jinja, or add the tokens")
        return cls(file, document, backend, added, variables, templates)

    @property
    def vocab_size(self) -> int:
        return int(self.backend.get_vocab_size(with_added_tokens=True))

    def check_vocabulary(self, vocab_size: int) -> None:
        """Raises StoreError where it has ids that a model of `vocab_size` does not know."""
        if self.vocab_size > vocab_size:
            what = f"has {self.vocab_size:,} tokens, and the model's vocabulary {vocab_size:,}"
            raise StoreError(self.place, what, "write the model's own tokenizer, or a larger model.vocab_size")

    def template(self, conversation: Conversation) -> ChatTemplate:
        """As transformers chooses: of several, `tool_use` where there are tools."""
        if conversation.tools is not None and "tool_use" in self.templates:
            return self.templates["tool_use"]
        return self.templates["default"]

    @cached_property
    def stop(self) -> tuple[int, ...]:
        """Ids that end an answer: the end of a turn, and the tokenizer's eos_token."""
        turn = self.templates["default"].end_of_turn if self.templates else ""
        ends = (turn, self.variables.get("eos_token", ""))
        return tuple(dict.fromkeys(self.added[token] for token in ends if token in self.added))

    @cached_property
    def fingerprint(self) -> str:
        """Of all that ids follow from: tokenizer, templates, what these are given."""
        templates = {name: template.source for name, template in self.templates.items()}
        content = json.dumps([self.document, dict(self.variables), templates], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def _sources(
    folder: Path, config: Mapping[str, Any], file: Path | str | None, default: bool
) -> dict[str, tuple[str, str]]:
    """Each template and its place, by name; a file goes before the configuration."""
    if file is not None:
        if not Path(file).is_file():
            raise StoreError(file, "does not exist", "name a Jinja file in `template`, or leave it out")
        return {"default": (_read(Path(file)), str(file))}
    found: dict[str, tuple[str, str]] = {}
    place = str(folder / _CONFIG)
    given = config.get("chat_template")
    if isinstance(given, str):
        found["default"] = given, place
    elif isinstance(given, list):
        found |= {str(one["name"]): (str(one["template"]), place) for one in given}
    elif isinstance(given, dict):
        found |= {name: (str(source), place) for name, source in given.items()}
    named = (folder / _NAMED).glob("*.jinja")
    for name, path in [("default", folder / _TEMPLATE), *((path.stem, path) for path in sorted(named))]:
        if path.is_file():
            found[name] = _read(path), str(path)
    if found and "default" not in found:
        what = f"has no template named default, only {', '.join(found)}"
        raise StoreError(place, what, "write template: FILE.jinja")
    return found or ({"default": (CHATML, "the default template")} if default else {})


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise StoreError(path, f"is not UTF-8: {error.reason} at byte {error.start}", "name another file") from None


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(_read(path))
    except ValueError as error:
        raise StoreError(path, f"is no JSON: {error}", "mend it, or remove it") from None
    if not isinstance(content, dict):
        raise StoreError(path, "is no JSON object", "mend it, or remove it")
    return content


def _content(token: Any) -> str:
    """Of a token that is written as text, or as an object."""
    return str(token["content"] if isinstance(token, dict) else token)
