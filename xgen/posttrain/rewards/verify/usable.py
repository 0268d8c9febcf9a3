"""Whether a record's tests in Python can tell right from wrong: what never runs passes with every answer."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from functools import lru_cache

_FIX = "write assert …, functions test_…, or check(candidate) beside the record's entry_point"


@lru_cache(8)  # the answers of a group come one after the other
def why_not_usable(tests: tuple[str, ...], entry_point: str | None) -> str:
    """'' for tests that say something of an answer."""
    proves = False
    for number, test in enumerate(tests):
        try:
            tree = ast.parse(test, f"tests[{number}]")
            compile(tree, f"tests[{number}]", "exec")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            return f"the record's tests[{number}]: {error}"
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and _wants(node.args):
                return f"the record's tests[{number}]: {node.name} wants arguments, and nothing gives it any; {_FIX}"
        proves = proves or any(_proves(node, bool(entry_point)) for node in tree.body)
    return "" if proves else f"nothing in the record's tests is run that could fail; {_FIX}"


def _proves(node: ast.stmt, has_entry_point: bool) -> bool:
    """Whether a statement of a module is one that a wrong answer may fail."""
    if isinstance(node, ast.Assert | ast.Raise):
        return True
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Call | ast.Await)
    if isinstance(node, ast.FunctionDef):
        return node.name.startswith("test_") or (node.name == "check" and has_entry_point)
    if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test):
        return False  # it is no main program
    return any(_proves(inner, has_entry_point) for inner in _within(node))


def _within(node: ast.stmt) -> Iterable[ast.stmt]:
    """Of loops, conditions, with and try; nothing of a class or an `async def`, which nobody calls."""
    if isinstance(node, ast.For | ast.While | ast.If | ast.With | ast.Try):
        for part in ast.iter_child_nodes(node):
            if isinstance(part, ast.stmt):
                yield part
            elif isinstance(part, ast.ExceptHandler):
                yield from part.body


def _wants(args: ast.arguments) -> bool:
    given = len(args.posonlyargs) + len(args.args) - len(args.defaults)
    return given > 0 or any(default is None for default in args.kw_defaults)
