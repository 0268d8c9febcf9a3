"""The Jinja of chat templates, as transformers has it (utils/chat_template_utils.py): the same sandbox, names, tags.

A template comes with a tokenizer that somebody else made: it sees plain JSON values and cannot reach Python through
them.
"""

from __future__ import annotations

import json
from datetime import datetime
from functools import cache
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

# The day that a template is told. Tokens are to be the same tomorrow: with the day of the clock, prompts of an `rl` run
# that is requeued after midnight would be other data, and the run refused. Llama 3.2's template has this one by itself.
TODAY = datetime(2024, 7, 26)
BEGIN, END = "\ufdd0", "\ufdd1"  # around what `{% generation %}` holds, where `xgen_tags` asks for them


@cache
def environment() -> ImmutableSandboxedEnvironment:
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols]
    )
    made.filters["tojson"] = _to_json
    made.globals.update(raise_exception=_raise, strftime_now=_strftime_now, dict=_Dicts(), namespace=_PublicNamespace)
    return made


class _GenerationTag(Extension):
    """`{% generation %} … {% endgeneration %}`: what the assistant wrote."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_hold", [nodes.ContextReference()])
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _hold(self, context: Context, caller: Macro) -> str:
        return f"{BEGIN}{caller()}{END}" if context.get("xgen_tags") else caller()


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    return TODAY.strftime(form)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """Jinja's own escapes what HTML would."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class _Dicts:
    """`dict` with what a template may do with it."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args, **kwargs)


class _PublicNamespace(Namespace):
    """Refuses names that begin with an underscore, which lead to Python's own."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # `namespace(self=…)` is allowed
        self, given = args[0], args[1:]
        names = dict(*given, **kwargs)
        for name in names:
            _check_public(name)
        Namespace.__init__(self, names)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_public(name)
        super().__setitem__(name, value)


def _check_public(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace takes no name that begins with an underscore: {name!r}")
