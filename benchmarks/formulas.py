"""Problems of algebra and arithmetic with answers as a model gives them: reasoning of its own, then a formula."""

from __future__ import annotations

import random
from collections.abc import Callable

_STEPS = (
    "We first write down what is given.", "Let x be the unknown.", "Both sides are multiplied by the same number.",
    "Expanding the product gives four terms.", "This can be simplified further.", "Substituting back, we check it.",
    "Note that the denominator is not zero.", "The two cases lead to the same value.", "Collecting terms, we find it.",
    "Therefore only one solution is left.", "We use the identity from before.", "Rounding is not needed here.",
)  # fmt: skip
_ENDS = (
    "So the answer is {}.",
    "The final answer is {}. I hope it is correct.",
    "Hence {}",
    "Thus we get {} in the end.",
)


def integers(rng: random.Random) -> tuple[str, list[str]]:
    """A reference, and what answers end with: right, and nearly."""
    value = rng.randint(-999, 99_999)
    return str(value), [str(value), str(value + 1), str(value * 10), str(-value)]


def _fraction(rng: random.Random) -> tuple[str, list[str]]:
    a, b = rng.randint(1, 97), rng.choice((8, 16, 25, 40, 125))
    said = [
        rf"$\frac{{{a}}}{{{b}}}$",
        rf"$\boxed{{\frac{{{3 * a}}}{{{3 * b}}}}}$",
        f"${a / b}$",
        rf"$\frac{{{b}}}{{{a}}}$",
    ]
    return rf"$\frac{{{a}}}{{{b}}}$", said


def _polynomial(rng: random.Random) -> tuple[str, list[str]]:
    a, b = rng.randint(1, 30), rng.randint(31, 60)
    product = f"(x+{a})(x+{b})"
    other = f"x^2+{a + b}x+{a * b}"
    return f"${other}$", [rf"$\boxed{{{product}}}$", f"${other}$", f"${a * b}+{a + b}x+x^2$", f"$(x+{a})(x+{b + 1})$"]


def _root(rng: random.Random) -> tuple[str, list[str]]:
    a, b = rng.randint(2, 40), rng.choice((2, 3, 5, 6, 7, 10))
    said = [rf"$\boxed{{{a}\sqrt{{{b}}}}}$", rf"$\sqrt{{{a * a * b}}}$", rf"${b}\sqrt{{{a}}}$", f"${a}$"]
    return rf"${a}\sqrt{{{b}}}$", said


def _set(rng: random.Random) -> tuple[str, list[str]]:
    a, b, c = rng.sample(range(-50, 50), 3)
    said = [
        rf"$\boxed{{\{{{c}, {a}, {b}\}}}}$",
        f"${a}, {b}, {c}$",
        rf"$\{{{a}, {b}\}}$",
        rf"$\{{{a}, {b}, {c + 1}\}}$",
    ]
    return rf"$\{{{a}, {b}, {c}\}}$", said


def _interval(rng: random.Random) -> tuple[str, list[str]]:
    a, b = rng.randint(-50, 0), rng.randint(1, 50)
    said = [rf"$\boxed{{[{a}, {b})}}$", f"${a} \\le x < {b}$", f"$[{a}, {b}]$", f"$({a}, {b})$"]
    return f"$[{a}, {b})$", said


def _line(rng: random.Random) -> tuple[str, list[str]]:
    a, b = rng.randint(2, 30), rng.randint(1, 99)
    said = [rf"$\boxed{{y = {a}x + {b}}}$", f"$y - {b} = {a}x$", f"$y = {b}x + {a}$", f"${a}x + {b}$"]
    return f"$y = {a}x + {b}$", said


def _angle(rng: random.Random) -> tuple[str, list[str]]:
    a, b = rng.randint(1, 20), rng.choice((3, 4, 6, 7, 9))
    said = [
        rf"$\boxed{{\frac{{{a}\pi}}{{{b}}}}}$",
        rf"${a} \cdot \frac{{\pi}}{{{b}}}$",
        rf"$\frac{{{a}}}{{{b}}}$",
        r"$\pi$",
    ]
    return rf"$\frac{{{a}\pi}}{{{b}}}$", said


_ALGEBRA: tuple[Callable[[random.Random], tuple[str, list[str]]], ...] = (
    _fraction, _polynomial, _root, _set, _interval, _line, _angle,
)  # fmt: skip


def algebra(rng: random.Random) -> tuple[str, list[str]]:
    """Every second problem of algebra, the others of integers."""
    return rng.choice(_ALGEBRA)(rng) if rng.random() < 0.5 else integers(rng)


def answered(
    make: Callable[[random.Random], tuple[str, list[str]]], problems: int, group: int, seed: int
) -> list[tuple[str, str]]:
    """(reference, answer): `group` answers to each problem, none with the text of another."""
    rng = random.Random(seed)
    found = []
    for _ in range(problems):
        reference, said = make(rng)
        for _ in range(group):
            steps = " ".join(rng.choices(_STEPS, k=12))
            found.append((reference, f"{steps} {rng.choice(_ENDS).format(rng.choice(said))}"))
    return found
