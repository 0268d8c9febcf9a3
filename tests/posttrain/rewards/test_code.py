"""The kind `code`: right programs pass, wrong ones do not, and the jail between tests and answer is not felt."""

# ruff: noqa: E501 - a program a line
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.posttrain.rewards.conftest import Judge
from xgen.posttrain.rewards.verify.program import program_of
from xgen.posttrain.rewards.verify.values import Decoder, Encoder
from xgen.spec.rewards import Code

CODE, SHARE = Code(kind="code"), Code(kind="code", all=False)
SUM = "import sys\nprint(sum(map(int, sys.stdin.read().split())))"
ANSWERS = """
from collections import Counter, namedtuple
from dataclasses import dataclass
import math
LIMIT = 10
class OwnError(ValueError): pass
@dataclass
class Point:
    x: int
    y: int = 0
    def moved(self, by): return Point(self.x + by, self.y)
    def __add__(self, other): return Point(self.x + other.x, self.y + other.y)
    def __len__(self): return self.x
class Stack:
    def __init__(self): self.items = []
    def push(self, item): self.items.append(item)
    def pop(self):
        if not self.items: raise IndexError('pop from an empty stack')
        return self.items.pop()
    def __iter__(self): return iter(self.items)
    def __contains__(self, item): return item in self.items
    def __getitem__(self, at): return self.items[at]
    def __enter__(self): return self
    def __exit__(self, *a): self.items.clear()
def add(a, b=1, *, c=0): return a + b + c
def same(x): return x
def bubble(items): items.sort()
def fill(table): table['x'] = [1]; return None
def best(items, key): return max(items, key=key)
def naturals():
    n = 0
    while True:
        yield n
        n += 1
def own(x): raise OwnError('no', x)
def count(text): return Counter(text)
def depth(node): return 0 if node is None else 1 + max(depth(node.left), depth(node.right))
def double(node):
    node.value *= 2
    return node
def maker(n): return lambda x: x + n
def factorial(n): return math.factorial(n)
"""
RIGHT = [
    "assert add(1, 2) == 3 and add(1) == 2 and add(1, c=5) == 7",
    "assert same((1, [2, {3: {4}}], None, 1.5, 'x', b'y', True, 2j, frozenset({5}))) == "
    "(1, [2, {3: {4}}], None, 1.5, 'x', b'y', True, 2j, frozenset({5}))",
    "assert isinstance(same((1,)), tuple) and isinstance(same([1]), list) and same(True) is True",
    "assert same(10 ** 5000) == 10 ** 5000 and same(float('inf')) == float('inf') and same(float('nan')) != 0",
    "assert same('\\ud800') == '\\ud800'",
    "a = [3, 1, 2]\nbubble(a)\nassert a == [1, 2, 3]",
    "t = {}\nassert fill(t) is None and t == {'x': [1]}",
    "assert best(['a', 'ccc', 'bb'], key=len) == 'ccc' and best([1, -3], key=lambda x: x * x) == -3",
    "import itertools\nassert list(itertools.islice(naturals(), 4)) == [0, 1, 2, 3]",
    "it = naturals()\nassert next(it) == 0 and next(it) == 1",
    "p = Point(1, 2)\nassert p.x == 1 and p.moved(3).x == 4 and p == Point(1, 2) and p != Point(2, 1)\n"
    "assert (p + Point(1, 1)).y == 3 and len(p) == 1 and str(p) == 'Point(x=1, y=2)'\np.x = 9\nassert p.x == 9",
    "assert isinstance(Point(1), Point) and not isinstance(Stack(), Point)",
    "s = Stack()\ns.push(1)\ns.push('b')\nassert s.pop() == 'b' and list(s) == [1] and 1 in s and s[0] == 1",
    "s = Stack()\ntry:\n    s.pop()\nexcept IndexError as error:\n    assert 'empty' in str(error)\nelse:\n    assert False",
    "with Stack() as s:\n    s.push(1)\nassert list(s) == []",
    "try:\n    own(3)\nexcept OwnError as error:\n    assert error.args == ('no', 3)\nelse:\n    assert False",
    "try:\n    own(3)\nexcept ValueError:\n    pass\nelse:\n    assert False",
    "assert count('aab') == {'a': 2, 'b': 1} and Counter('a') == count('a')",
    "class Node:\n    def __init__(self, value, left=None, right=None):\n        self.value, self.left, self.right = value, left, right\n"
    "assert depth(Node(1, Node(2, Node(3)), Node(4))) == 3\nn = Node(4)\nassert double(n) is n and n.value == 8",
    "assert maker(3)(4) == 7",
    "assert LIMIT == 10 and math.isclose(same(0.1) + 0.2, 0.3)",
    "from solution import add as plus\nassert plus(2, 2) == 4",
    "import solution\nassert solution.add(2, 2) == 4",
    "def test_add():\n    assert add(1, 1) == 2",
    "assert factorial(30) == 265252859812191058636308480000000",
    "assert sorted(map(same, {3, 1})) == [1, 3]",
    "import datetime, decimal\nassert same(datetime.date(2026, 1, 2)).day == 2 and same(decimal.Decimal('1.1')) == decimal.Decimal('1.1')",
    "print('1' * 99)\nassert True",
]  # fmt: skip
WRONG = [
    "assert add(1, 2) == 4",
    "assert missing(1) == 1",
    "def test_add():\n    assert add(1, 1) == 3",
    "a = [3, 1]\nbubble(a)\nassert a == [3, 1]",
    "assert Point(1) == 1 or Point(1) == (1, 0)",
    "try:\n    add('x')\nexcept:\n    raise",
    "import sys\nsys.exit(0)",
    "raise Exception",
]


@pytest.mark.parametrize("test", RIGHT)
def test_a_test_of_a_right_answer_passes_across_the_jails(judge: Judge, test: str) -> None:
    verdict = judge(f"Here it is:\n```python\n{ANSWERS}\n```\nDone.", CODE, tests=[test])
    assert verdict.score == 1, verdict


def test_every_test_counts_by_itself(judge: Judge) -> None:
    verdict = judge(ANSWERS, SHARE, tests=[*RIGHT, *WRONG])
    assert verdict.score == pytest.approx(len(RIGHT) / (len(RIGHT) + len(WRONG)))
    assert verdict.faults == {}


@pytest.mark.parametrize("test", WRONG)
def test_a_wrong_answer_does_not_pass(judge: Judge, test: str) -> None:
    assert judge(ANSWERS, CODE, tests=[RIGHT[0], test]).score == 0


def test_humanevals_check_is_called_with_the_entry_point(judge: Judge) -> None:
    check = "def check(candidate):\n    assert candidate(2) == 4"
    for body, score in (("x * 2", 1), ("x + 1", 0)):
        answer = f"def twice(x): return {body}"
        assert judge(answer, CODE, tests=[check], entry_point="twice").score == score


def test_an_entry_point_may_have_the_name_of_a_builtin(judge: Judge) -> None:
    answer = "def sum(a, b): return a + b"
    assert judge(answer, CODE, tests=["assert sum(1, 2) == 3"], entry_point="sum").score == 1
    assert judge("def len(x): return 3", CODE, tests=["assert len([1]) == 3"]).score == 0


def test_a_program_is_compared_by_what_it_prints(judge: Judge) -> None:
    tests = [{"input": "1 2\n", "output": "3"}, {"input": "4 5", "output": "9\n\n"}]
    assert judge(SUM, CODE, tests=tests).score == 1
    assert judge("print(3)", CODE, tests=tests).score == 0
    assert judge("print(3)", SHARE, tests=tests).score == 0.5
    assert judge(f"{SUM}\nraise SystemExit(1)", CODE, tests=tests).score == 0
    assert judge(f"def main():\n    print(3)\nif __name__ == '__main__':\n    main()", CODE, tests=tests[:1]).score == 1  # noqa: F541


def test_large_input_and_output_pass_through(judge: Judge) -> None:
    given_ = "\n".join(map(str, range(9000)))
    copy = "import sys\nsys.stdout.write(sys.stdin.read())"
    assert judge(copy, CODE, tests=[{"input": given_, "output": given_}]).score == 1
    large = "1 " * 1_000_000
    assert judge("input()\nprint(1)", CODE, tests=[{"input": large, "output": "1"}]).score == 1
    assert judge("print(1)", CODE, tests=[{"input": large, "output": "1"}]).score == 1


def test_a_program_may_use_threads_processes_and_files(judge: Judge) -> None:
    program = (
        "import subprocess, sys, threading\nopen('x', 'w').write('a')\nt = threading.Thread(target=lambda: print('t'))\n"
        "t.start()\nt.join()\nprint(open('x').read())\nprint(subprocess.check_output(['echo', 'sub'], text=True))"
    )
    assert judge(program, CODE, tests=[{"input": "", "output": "t\na\nsub"}]).score == 1


def test_two_answers_see_nothing_of_each_other(judge: Judge) -> None:
    program = "import os\nprint(os.listdir('.'), os.getcwd() == os.path.realpath('.'))\nopen('left', 'w').write('x')"
    for number in range(3):
        assert judge(f"{program} # {number}", CODE, tests=[{"input": "", "output": "[] True"}]).score == 1


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("while True: pass", "timeout"),
        ("x = bytearray(1 << 40)", "memory"),
        ("while True: print('x' * 999)", "output"),
        ("import os, signal\nos.abort()", "crashed"),
    ],
)
def test_a_program_that_is_stopped_has_not_passed_and_the_reason_is_counted(
    judge: Judge, program: str, reason: str
) -> None:
    verdict = judge(program, CODE, tests=[{"input": "", "output": ""}])
    assert (verdict.score, verdict.failures, verdict.faults) == (0, {}, {"code": reason})


@pytest.mark.parametrize(
    "tests", [[], "assert 1", [{"input": "1"}], [1], None, ["assert 1", {"input": "", "output": ""}]]
)
def test_tests_that_are_none_are_a_failure(judge: Judge, tests: object) -> None:
    verdict = judge("x = 1", CODE, tests=tests)
    assert (verdict.score, verdict.failures) == (None, {"code": "error"})


def test_a_test_that_is_no_python_is_a_failure_of_the_record(judge: Judge) -> None:
    verdict = judge("x = 1", CODE, tests=["assert x == "])
    assert (verdict.score, verdict.failures) == (None, {"code": "error"})
    assert "tests[0]" in verdict.details["code"]
    verdict = judge("x = 1", CODE, tests=["return x", "assert x"])
    assert (verdict.score, verdict.failures) == (None, {"code": "error"})
    verdict = judge("x = 1", CODE, tests=["assert x"], entry_point=["x"])
    assert "'entry_point'" in verdict.details["code"]


def test_the_last_block_after_the_reasoning_is_the_program() -> None:
    assert program_of("x = 1") == "x = 1"
    assert program_of("a\n```python\nx = 1\n```\nb\n```Python\ny = 2\n```\n") == "y = 2\n"
    assert program_of("a\n```\nx = 1\n```\nb\n```\ny = 2\n```\n") == "y = 2\n"
    assert program_of("<think>```python\nx\n```</think>\n```py\nz\n```") == "z\n"
    assert program_of("```python\ncut = 1") == "cut = 1"


@pytest.mark.parametrize(
    "around",
    [
        "Install it:\n```bash\npip install x\n```\nThen:\n%s\nDone.",
        "%s\nIt prints:\n```text\n4\n```\nbye",
        "%s\nIt prints:\n```\n4\n```",
        "Use ```add``` here:\n%s\nand ```x``` there",
        "In C:\n````c\n```\nint x;\n````\nhere\n%s",
    ],
)
@pytest.mark.parametrize("name", ["python", "Python", "py", 'python title="a.py"'])
def test_other_blocks_are_no_program(around: str, name: str) -> None:
    assert program_of(around % f"```{name}\nx = 1\n```") == "x = 1\n"


@pytest.mark.parametrize(
    "test",
    [
        "def check(candidate):\n    assert candidate(2) == 4",
        "import unittest\nclass TestF(unittest.TestCase):\n    def test_f(self):\n        self.assertEqual(f(2), 4)",
        "class TestF:\n    def test_f(self):\n        assert f(2) == 4",
        "def test(): assert f(2) == 4\nif __name__ == '__main__':\n    test()",
        "async def test_f():\n    assert f(2) == 4",
        "def test_f(value, expected):\n    assert f(value) == expected",
        "f(2) == 4",
        "value = f(2)",
        "# f(2) is 4",
    ],
)
def test_tests_that_nothing_fails_are_a_failure_of_the_record(judge: Judge, test: str) -> None:
    """They passed with every answer."""
    verdict = judge("def f(x): return 0", CODE, tests=[test])
    assert (verdict.score, verdict.failures) == (None, {"code": "error"})
    assert "write assert" in verdict.details["code"]


@pytest.mark.parametrize(
    "test",
    [
        "for n in range(3):\n    assert f(n) == 2 * n",
        "import unittest\nclass T(unittest.TestCase):\n    def test_f(self): self.assertEqual(f(2), 4)\n"
        "T('test_f').debug()",
        "def test_f(value=2):\n    assert f(value) == 4",
        "try:\n    f('x', 1)\nexcept TypeError:\n    pass\nelse:\n    raise AssertionError",
    ],
)
def test_tests_of_other_forms_pass_with_right_answers_alone(judge: Judge, test: str) -> None:
    assert judge("def f(x): return 2 * x", CODE, tests=[test]).score == 1
    assert judge("def f(*x): return 0", CODE, tests=[test]).score == 0


_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | st.complex_numbers(allow_nan=False)
    | st.fractions() | st.decimals(allow_nan=False) | st.dates() | st.datetimes(),
    lambda inner: st.lists(inner, max_size=4) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
    | st.sets(st.integers() | st.text(), max_size=3) | st.frozensets(st.integers(), max_size=3),
    max_leaves=12,
)  # fmt: skip


@given(_PLAIN)
def test_plain_values_cross_unchanged(value: object) -> None:
    def none(*_: object) -> tuple[int, bool]:
        raise AssertionError("no handle")

    import json

    crossed = Decoder(none).decode(json.loads(json.dumps(Encoder(none).encode(value))))
    assert crossed == value
    assert type(crossed) is type(value)
