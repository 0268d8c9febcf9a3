"""The kind `math`: math-verify's own verdicts, faster, and no zeros for what it could not decide."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import math_verify
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latex2sympy2_extended import latex2sympy2
from math_verify import grader, parser
from sympy import Number, SympifyError

from tests.posttrain.rewards.conftest import Judge
from xgen.posttrain.rewards.verify import faster, mathematics
from xgen.spec.rewards import Math

MATH = Math(kind="math")


@pytest.fixture(scope="module", autouse=True)
def prepared() -> None:
    """This process, as a zygote."""
    mathematics.prepare()


EQUAL = [
    ("42", "So we have 42."),
    ("1,234", "The total is 1234"),
    ("0.5", r"$\boxed{\frac{1}{2}}$"),
    (r"\frac{1}{2}", r"The answer is $\frac12$."),
    (r"$\frac{1}{2}$", "It is 0.5"),
    ("x^2+2x+1", r"$\boxed{(x+1)^2}$"),
    (r"\sqrt{8}", r"$2\sqrt{2}$"),
    ("(1,2)", r"$\boxed{(1,2)}$"),
    (r"\{1,2,3\}", r"$\{3,1,2\}$"),
    ("Natalia sold 48/2 = 24 clips.\n#### 72", "thus 72"),
    (7, "seven is 7"),
    ("50%", r"$50\%$"),
    ("-3", "-3"),
    ("x=3", r"$\boxed{3}$"),
]
UNEQUAL = [
    ("42", "So we have 43."),
    ("42", "I do not know"),
    ("42", ""),
    ("x^2", r"$\boxed{x^3}$"),
    ("1", r"$\boxed{1.1}$"),
    (r"\frac{1}{3}", r"$\frac{1}{2}$"),
    ("12", "1, 2"),
]


@pytest.mark.parametrize(("reference", "said"), EQUAL)
def test_an_equal_formula_is_right(judge: Judge, reference: object, said: str) -> None:
    assert judge(said, MATH, answer=reference).score == 1


@pytest.mark.parametrize(("reference", "said"), UNEQUAL)
def test_another_formula_is_wrong(judge: Judge, reference: object, said: str) -> None:
    assert judge(said, MATH, answer=reference).score == 0


def test_a_reference_without_a_formula_is_a_failure(judge: Judge) -> None:
    verdict = judge("42", MATH, answer="  ")
    assert (verdict.score, verdict.failures) == (None, {"math": "error"})


def test_what_sympy_cannot_finish_is_a_failure_and_no_zero(judge: Judge) -> None:
    verdict = judge("$100000000!$", MATH, answer="42")
    assert (verdict.score, verdict.failures) == (None, {"math": "timeout"})
    assert judge("$42$", MATH, answer="42").score == 1


def test_a_failure_that_math_verify_would_make_a_zero_is_told() -> None:
    """In this process: its `except Exception` swallows a recursion that is too deep."""
    reply = mathematics.judge({"reference": "42", "answer": "$" + "(" * 150 + "1" + ")" * 150 + "$"})
    assert (reply.score, reply.failure) == (None, "error")
    assert mathematics.judge({"reference": "42", "answer": "42"}).score == 1


@given(st.from_regex(r"-?([0-9]{1,40}(\.[0-9]{1,40})?|\.[0-9]{1,40})", fullmatch=True))
@settings(max_examples=100, deadline=None)
def test_a_number_is_read_as_sympy_reads_it(text: str) -> None:
    """Of the same type, value and precision; with zeros in front it is no number to sympy."""
    try:
        theirs = faster._new_number(Number, text)
    except SympifyError:
        with pytest.raises(SympifyError):
            faster.new_number(Number, text)
        return
    ours = faster.new_number(Number, text)
    assert type(ours) is type(theirs)
    assert ours == theirs
    assert getattr(ours, "_prec", None) == getattr(theirs, "_prec", None)


@contextmanager
def as_it_is() -> Iterator[None]:
    """math-verify without what makes it faster."""
    _set(faster._new_number, faster._create_parser, faster._symbolic_eq)
    try:
        yield
    finally:
        _set(faster.new_number, faster.create_parser, faster.symbolic_eq)


def _set(new_number: object, create_parser: object, symbolic_eq: object) -> None:
    Number.__new__ = staticmethod(new_number)
    latex2sympy2._Latex2Sympy.create_parser = create_parser
    grader.sympy_symbolic_eq = symbolic_eq
    parser.parse_latex_cached.cache_clear()


_PARTS = st.sampled_from([
    *("1", "12", "007", "3.50", ".5", "1,000", "2/3", "$x+1$", "$1+x$", "$\\frac{1}{2}$", "\\boxed{7}", "\\boxed{x}"),
    *("50%", "the answer is ", "final answer is ", " ", ",", ".", "-", "=", "$", "and", "(1,2)", "x=3", "\n", "\u0663"),
])  # fmt: skip


@given(st.lists(_PARTS, max_size=6).map("".join), st.lists(_PARTS, min_size=1, max_size=3).map("".join))
@settings(max_examples=60, deadline=None)
def test_verdicts_are_those_of_math_verify(said: str, reference: str) -> None:
    gold = mathematics._gold(reference)
    reply = mathematics.judge({"reference": reference, "answer": said})
    if not gold:
        assert reply.failure == "error"
        return
    with as_it_is():
        theirs = math_verify.verify(gold, math_verify.parse(said, parsing_timeout=None), timeout_seconds=None)
    assert reply.score == float(theirs)
