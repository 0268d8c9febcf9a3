"""The kind `math`: math-verify without its alarms, which only a main thread has and which leave scores of 0 behind.

The process is killed from outside instead. Verdicts are math-verify's own: the same extraction, the same comparison;
what is added is that a number is not read by a compiler, that what was parsed is kept, and that what its `except
Exception` would make a 0 of (memory, recursion) is told.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import math_verify
from math_verify import grader, parser
from sympy import Float, Integer
from sympy.core.basic import Basic
from sympy.core.evalf import EvalfMixin

from xgen.posttrain.rewards.verify.reply import Reply

_KEPT = 4096  # parsed references, formulas and comparisons
_NUMBER = re.compile(r"(0|[1-9]\d*)(\.\d+)?|\.\d+", re.ASCII)
_IS_MARKED = re.compile(r"\$|\\boxed|\\\(|\\\[")
_PLAIN = re.compile(r"\s*-?(\d[\d, ]*)?(\.\d+)?\s*%?\s*", re.ASCII)
_read_number = parser.Number
_swallowed: list[BaseException] = []


def judge(job: Mapping[str, Any]) -> Reply:
    _swallowed.clear()
    gold = _gold(job["reference"])
    if not gold:
        return Reply(None, "error", detail=f"the reference {job['reference']!r:.100} holds no formula")
    said = math_verify.parse(job["answer"], parsing_timeout=None)
    is_equal = _is_equal(job["reference"], tuple(said)) if _is_hashable(said) else _verify(gold, said)
    if _swallowed and not is_equal:
        is_memory = isinstance(_swallowed[0], MemoryError)
        return Reply(None, "memory" if is_memory else "error", detail=f"{_swallowed[0]!r:.100}")
    return Reply(float(is_equal))


def _verify(gold: list[Any], said: list[Any]) -> bool:
    return bool(math_verify.verify(gold, said, timeout_seconds=None))


@lru_cache(_KEPT)
def _gold(reference: str) -> list[Any]:
    """Bare LaTeX is put between dollars, without which math-verify takes its last number only."""
    reference = reference.rpartition("####")[2]  # GSM8K
    if not _IS_MARKED.search(reference) and not _PLAIN.fullmatch(reference):
        reference = f"${reference.strip()}$"
    gold: list[Any] = math_verify.parse(reference, parsing_timeout=None)
    return gold


@lru_cache(_KEPT)
def _compared(reference: str, said: tuple[Any, ...], kinds: tuple[type, ...]) -> bool:
    del kinds  # of the key: 1 and 1.0 are equal to a dict, and not to math-verify
    is_equal = _verify(_gold(reference), list(said))
    if _swallowed and not is_equal:
        raise _NotKeptError
    return is_equal


class _NotKeptError(Exception):
    """The comparison failed: it is not an answer to keep."""


def _is_equal(reference: str, said: tuple[Any, ...]) -> bool:
    try:
        return _compared(reference, said, tuple(type(part) for part in said))
    except _NotKeptError:
        return False


def _is_hashable(said: list[Any]) -> bool:
    """The text that was parsed is in the key: equal formulas of other texts may compare in other ways."""
    return len(said) == 2 and isinstance(said[1], str) and isinstance(said[0], Basic | str)


def _number(text: str) -> Any:
    """What `sympify` makes of digits, in a hundredth of the time. Others go where they went."""
    if not _NUMBER.fullmatch(text):
        return _read_number(text)
    return Float(text) if "." in text else Integer(int(text))


def _watched(function: Callable[..., Any]) -> Callable[..., Any]:
    """Failures pass here on their way to an `except Exception`."""

    def watched(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (MemoryError, RecursionError) as error:
            _swallowed.append(error)
            raise

    return watched


def prepare() -> None:
    """Once in a process, before its first verdict."""
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # that its time-outs are off is on purpose
    parser.Number = _number
    parser.parse_latex_cached = lru_cache(_KEPT)(_watched(parser.parse_latex_cached.__wrapped__))
    parser.parse_expr_cached = lru_cache(_KEPT)(_watched(parser.parse_expr_cached.__wrapped__))
    for name in ("simplify", "solve", "sympy_expr_eq"):
        setattr(grader, name, _watched(getattr(grader, name)))
    Basic.doit = _watched(Basic.doit)
    EvalfMixin.evalf = EvalfMixin.n = _watched(EvalfMixin.evalf)
    for gold, said in (("1", "$1.5$"), (r"$\frac{x}{2}$", r"so $\boxed{0.5x}$")):
        judge({"reference": gold, "answer": said})  # compiles its expressions, loads the grammar
