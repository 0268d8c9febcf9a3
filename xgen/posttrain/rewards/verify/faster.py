"""What makes math-verify faster without another verdict. `install` changes it for the whole process.

- Digits are no program: `Number("12")` compiles and runs `Integer(12)`, in half a millisecond.
- LaTeX is first parsed with ANTLR's SLL prediction, which "will either return the same parse tree that would be
  returned with LL, or report a syntax error" (its documentation of PredictionMode); then LL is asked as before.
- Before `simplify` works for a tenth of a second on a difference, its value is taken at one point of its domain: what
  is not zero there is not zero, whatever it is simplified to.
- Patterns that a text cannot match, for want of a dollar or of the word "answer", are not tried.
- What was parsed is kept for more than twenty formulas.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

from antlr4.atn.ParserATNSimulator import ParserATNSimulator
from antlr4.atn.PredictionMode import PredictionMode
from antlr4.dfa.DFA import DFA
from antlr4.PredictionContext import PredictionContextCache
from latex2sympy2_extended import latex2sympy2
from math_verify import grader, parser
from sympy import Float, Integer, Number, Rational
from sympy.core.expr import Expr

_CONFIGS = (parser.LatexExtractionConfig(), parser.ExprExtractionConfig())
_LATEX_SIGNS = frozenset("$\\[")  # each of its patterns begins with one of them, white space or a word aside
_KEPT = 4096  # formulas
_NUMBER = re.compile(r"-?((0|[1-9]\d*)(\.\d+)?|\.\d+)", re.ASCII)
_CLEAR = 1e-6  # what `evalf` to 15 digits says is further from zero than this
_new_number = Number.__new__
_Parser = latex2sympy2.PSParser
_create_parser = latex2sympy2._Latex2Sympy.create_parser
_symbolic_eq = grader.sympy_symbolic_eq
# Of its own, so that the LL parser learns nothing from SLL.
_SLL_TABLES = [DFA(state, number) for number, state in enumerate(_Parser.atn.decisionToState)]
_SLL_CONTEXTS = PredictionContextCache()


def parse(text: str) -> list[Any]:
    """`math_verify.parse` without an alarm, and without the patterns that this text cannot match."""
    is_latex = not _LATEX_SIGNS.isdisjoint(text)
    # Only of ASCII it is sure what a pattern that ignores case matches.
    is_answer = not text.isascii() or "answer" in text.lower()
    regexes = [
        ([pattern for pattern in patterns if is_answer or pattern[0] not in _answer_patterns()], config)
        for patterns, config in parser.get_extraction_regexes(_CONFIGS)
        if is_latex or not isinstance(config, parser.LatexExtractionConfig)
    ]
    try:
        found: list[Any] = parser.extract_target_from_pred(text, regexes, fallback_mode="first_match")
    except Exception:  # noqa: BLE001 - as there; `watched` has seen what is no mistake of the text
        return []
    return found


@cache
def _answer_patterns() -> frozenset[re.Pattern[str]]:
    """Those that begin with the word, or with "final answer"."""
    every = [pattern for patterns, _ in parser.get_extraction_regexes(_CONFIGS) for pattern, _ in patterns]
    return frozenset(pattern for pattern in every if pattern.pattern.startswith(("(?i:answer)", "(?i:final answer")))


def new_number(kind: type[Number], *given: Any) -> Any:
    """`Number.__new__`, which gives a text to `sympify`. What is no plain number still goes there."""
    if kind is not Number or len(given) != 1 or not isinstance(given[0], str) or not _NUMBER.fullmatch(given[0]):
        return _new_number(kind, *given)
    if "." not in given[0]:
        return Integer(int(given[0]))
    return -Float(given[0][1:]) if given[0].startswith("-") else Float(given[0])


def create_parser(converter: Any, latex: str) -> Any:
    """Whose `math()` tries SLL first."""
    made = _create_parser(converter, latex)
    made._interp = ParserATNSimulator(made, _Parser.atn, _SLL_TABLES, _SLL_CONTEXTS)
    made._interp.predictionMode = PredictionMode.SLL

    def math() -> Any:
        try:
            return _Parser.math(made)
        except Exception:  # noqa: BLE001 - its listener raises no narrower one
            return _Parser.math(_create_parser(converter, latex))

    made.math = math
    return made


def symbolic_eq(one: Any, other: Any) -> bool:
    return False if _differ(one, other) else bool(_symbolic_eq(one, other))


def _differ(one: Any, other: Any) -> bool:
    """Certainly: at positive values of their symbols, which are in every domain that an assumption leaves."""
    if not isinstance(one, Expr) or not isinstance(other, Expr):
        return False
    try:
        difference = one - other
        symbols = sorted(difference.free_symbols, key=str)
        point = {symbol: Rational(7919 + 104729 * number, 7907) for number, symbol in enumerate(symbols)}
        return bool(abs(complex(difference.subs(point).evalf(15))) > _CLEAR)
    except (MemoryError, RecursionError):
        raise
    except Exception:  # noqa: BLE001 - no number: not known
        return False


def install(watched: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """`watched` is put around what is called where math-verify catches all exceptions."""
    Number.__new__ = staticmethod(new_number)
    parser.parse_latex_cached = lru_cache(_KEPT)(watched(parser.parse_latex_cached.__wrapped__))
    parser.parse_expr_cached = lru_cache(_KEPT)(watched(parser.parse_expr_cached.__wrapped__))
    latex2sympy2._Latex2Sympy.create_parser = create_parser
    grader.sympy_symbolic_eq = watched(symbolic_eq)
