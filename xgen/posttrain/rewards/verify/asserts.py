"""In a jail: a record's tests in Python, whose names are the answer's, in another jail (`remote`)."""

from __future__ import annotations

import ast
import builtins
import importlib
import os
import socket
import sys
import types
from collections.abc import Sequence
from typing import Any

from xgen.posttrain.rewards.verify.remote import TESTS, GoneError, Link

PASSED, FAILED, GONE, MEMORY = b"1", b"0", b"x", b"m"  # what `run_tests` writes: one of the first two a test
# The answer's `from math import isclose` serves the tests too, as the real one.
_LIBRARY = {
    *(
        "math",
        "cmath",
        "collections",
        "itertools",
        "functools",
        "heapq",
        "bisect",
        "operator",
        "string",
        "re",
        "typing",
    ),
    *("statistics", "fractions", "decimal", "datetime", "json", "copy", "random", "time", "numbers"),
}


def run_tests(end: int, verdict: int, tests: Sequence[str], entry_point: str | None, need_all: bool) -> None:
    """In the tests' jail: each in turn, in one namespace. What came of them is written to the file `verdict`."""
    link = Link(socket.socket(fileno=end), is_answer=False)
    sys.stdout = sys.stderr  # what a test prints is no verdict
    try:
        link._receive()
        names = _Names(link, "\n".join(tests), entry_point)
    except GoneError:
        os.write(verdict, GONE)
        os._exit(0)
    for test in tests:
        has_passed = False
        try:
            names.run(test)
            has_passed = not link.is_gone
        except BaseException as error:  # noqa: BLE001 - whatever a test raises, it has failed
            if isinstance(error, MemoryError):
                link.is_out_of_memory = True
        os.write(verdict, PASSED if has_passed else FAILED)
        if link.is_gone or (need_all and not has_passed):
            break
    os.write(verdict, (GONE if link.is_gone else b"") + (MEMORY if link.is_out_of_memory else b""))
    os._exit(0)


class _Names(dict[str, Any]):
    """Globals of the tests: what they do not define themselves, and Python does not, is the answer's."""

    def __init__(self, link: Link, tests: str, entry_point: str | None) -> None:
        super().__init__(__name__=TESTS, __builtins__=builtins)
        self._link, self._entry_point = link, entry_point
        self._there = {name: (kind, said) for name, kind, said in link.request("names")}
        # `math.isclose` is Python's even when the answer has a `math` of its own.
        bases = {node.value.id for node in ast.walk(ast.parse(tests)) if isinstance(node, ast.Attribute)
                 and isinstance(node.value, ast.Name)}  # fmt: skip
        self._modules = bases & set(sys.stdlib_module_names)
        sys.modules["solution"] = _Solution(self)

    def run(self, test: str) -> None:
        """Also the functions `test_…` that it defines, and HumanEval's `check`."""
        before = dict(self)
        exec(compile(test, TESTS, "exec"), self)
        made = [name for name in self if self[name] is not before.get(name)]
        for name in made:
            if name.startswith("test_") and isinstance(self[name], types.FunctionType):
                self[name]()
        if self._entry_point and "check" in made:
            self["check"](self[self._entry_point])

    def __missing__(self, name: str) -> Any:
        if name not in self._there or (hasattr(builtins, name) and name != self._entry_point):
            raise KeyError(name)
        return self.of_answer(name)

    def of_answer(self, name: str) -> Any:
        """Raises KeyError."""
        kind, said = self._there[name]
        if name in self._modules and name != self._entry_point:
            return importlib.import_module(name)
        if kind == "error":
            return self._link.error_class(said)
        if kind == "library" and said[0].lstrip("_") in _LIBRARY:
            module = importlib.import_module(said[0])
            return getattr(module, said[1]) if said[1] else module
        return self._link.request("name", name)


class _Solution(types.ModuleType):
    """`from solution import f` in a test."""

    def __init__(self, names: _Names) -> None:
        super().__init__("solution")
        self.__dict__["_names"] = names

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_names"].of_answer(name)
        except KeyError:
            raise AttributeError(name) from None
