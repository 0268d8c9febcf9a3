"""The kind `math`: math-verify without its alarms, which only a main thread has and which leave scores of 0 behind.

The process is killed from outside instead. Verdicts are math-verify's own: the same extraction, the same comparison,
`faster`; what is added is that failures of which its `except Exception` would make a 0 (memory, recursion) are told.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import math_verify
from math_verify import grader, parser
from sympy.core.basic import Basic
from sympy.core.evalf import EvalfMixin

from xgen.posttrain.rewards.verify import faster
from xgen.posttrain.rewards.verify.reply import Reply

_KEPT = 4096  # parsed references, formulas and comparisons
_IS_MARKED = re.compile(r"\$|\\boxed|\\\(|\\\[")
_PLAIN = re.compile(r"\s*-?(\d[\d, ]*)?(\.\d+)?\s*%?\s*", re.ASCII)
# One of each shape that answers have.
_USUAL = (
    "1", "-1.5", "1,234", r"\frac{1}{2}", r"-\frac{3x}{4y}", r"\frac12", "x^2+2x-3", "(x+1)(x-2)^{3}", r"2\sqrt{3}+1",
    r"\sqrt[3]{x}", r"\{1, 2, 3\}", "1, 2, 3", "(1, 2)", "[1, 2)", r"(-\infty, 3] \cup (4, \infty)", "x = 3",
    "y = 2x + 1", "x = 1, y = 2", "2x + 3y = 6", r"1 < x \le 5", r"x \in [0, 5)", r"x \ge -2", r"\frac{\pi}{4}",
    r"2\pi r",
    r"50\%", r"90^\circ", r"\sin(x) + \cos^2(2x)", r"\log_2(8)", r"\ln x", "e^{2x}", "a_1 + a_2", "n!", r"\binom{n}{k}",
    r"|x - 1|", r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\sum_{n=1}^{5} n", r"\int_0^1 x dx", "3+4i",
    r"\text{yes}", r"10 \text{ cm}", r"3 \times 10^{5}", r"6 \cdot 7", r"\left(\frac{1}{2}, 3\right)", r"f(x) = x^2",
    r"\lfloor x \rfloor", r"x \equiv 3", "AB", r"\$12.50", r"\alpha + \beta", r"2\frac{1}{3}", "x:y", r"\emptyset",
)  # fmt: skip
_swallowed: list[BaseException] = []


def judge(job: Mapping[str, Any]) -> Reply:
    _swallowed.clear()
    gold = _gold(job["reference"])
    if not gold:
        return Reply(None, "error", detail=f"the reference {job['reference']!r:.100} holds no formula")
    said = faster.parse(job["answer"])
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
    return faster.parse(reference)


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
    faster.install(_watched)
    for name in ("simplify", "solve", "sympy_expr_eq"):
        setattr(grader, name, _watched(getattr(grader, name)))
    Basic.doit = _watched(Basic.doit)
    EvalfMixin.evalf = EvalfMixin.n = _watched(EvalfMixin.evalf)
    for formula in _USUAL:  # the parser's tables grow with what it has read, and a fork has them
        faster.parse(f"${formula}$")
    judge({"reference": "x+1", "answer": r"so $\boxed{2x+1}$"})
    for kept in (_gold, _compared, parser.parse_latex_cached, parser.parse_expr_cached):
        kept.cache_clear()
