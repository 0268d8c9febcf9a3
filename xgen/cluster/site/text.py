"""A draft as the text of a profile: YAML in which each value stands below what is known of it. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from xgen.cluster.site.draft import Draft
from xgen.spec.layers import Key, in_flow, parse_key, read_override, set_key

_WIDTH = 118
_COLUMN = 36  # of comments beside their values
_GUESS = "GUESS: "


def raw_profile(draft: Draft, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], dict[Key, str]]:
    """Its keys and values as YAML has them, and what is known of each. Raises SpecError for an override."""
    raw: dict[str, Any] = {}
    whys: dict[Key, str] = {}
    for setting in draft.settings:
        holder = raw
        for part in setting.key[:-1]:
            holder = holder.setdefault(part, {})
        holder[setting.key[-1]] = setting.value
        whys[setting.key] = f"{_GUESS}{setting.why} (check: {setting.check})" if setting.check else setting.why
    for override in overrides:
        text, value = read_override(override)
        set_key(raw, {}, text, value)
        key = parse_key(text)
        for below in [known for known in whys if known[: len(key)] == key]:
            del whys[below]
        shown = key[:2]
        whys[shown] = f"{whys[shown]}; {text}: as you said" if shown in whys else "as you said"
    return raw, whys


def reasons(whys: Mapping[Key, str]) -> dict[str, str]:
    """What is known of each value, by its key as people write it."""
    return {".".join(map(str, key)): why.removeprefix(_GUESS) for key, why in whys.items()}


def guesses(whys: Mapping[Key, str]) -> dict[str, str]:
    """What is to be checked."""
    return reasons({key: why for key, why in whys.items() if why.startswith(_GUESS)})


def profile_text(draft: Draft, raw: Mapping[str, Any], whys: Mapping[Key, str], written: str) -> str:
    """`written`: by what and when."""
    head = [*draft.head, written, *([f"{_GUESS.strip()} marks what you should check."] if guesses(whys) else [])]
    lines = [line for part in head for line in _comment(part, "")]
    for key, value in raw.items():
        lines += _entry((key,), value, whys)
    if draft.left_out:
        lines += ["", "# Not known from here; what holds without it, or an example:"]
        lines += [f"#   {line}" for line in draft.left_out]
    return "\n".join(lines) + "\n"


def _entry(key: Key, value: Any, whys: Mapping[Key, str]) -> Iterator[str]:
    indent, why = "  " * (len(key) - 1), whys.get(key, "")
    if len(key) == 1 and isinstance(value, dict) and value:
        yield from ("", *_comment(why, ""), f"{in_flow(key[0])}:")
        for name, below in value.items():
            yield from _entry((*key, name), below, whys)
        return
    line = f"{indent}{in_flow(key[-1])}: {in_flow(value)}"
    beside = f"{line:<{_COLUMN}}  # {why}"
    if len(key) == 1:
        yield ""
    if why and len(beside) <= _WIDTH:
        yield beside
    else:
        yield from (*_comment(why, indent), line)


def _comment(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}#   ", break_on_hyphens=False,
        break_long_words=False,
    )  # fmt: skip
