"""Tests in one jail, the answer in another, plain values between them.

The tests see the answer's functions and objects as `Proxy`s. What a function returns arrives as data of the tests'
own process, so that an object that claims to equal everything, a changed builtin or an early exit proves nothing.
The answer, in turn, may call what a test hands to it (a key function, a node of a tree) and nothing else of it.
"""

from __future__ import annotations

import builtins
import json
import operator
import os
import socket
import struct
import types
from collections.abc import Callable, Sequence
from typing import Any

from xgen.posttrain.rewards.verify.program import NO_MEMORY, new_module
from xgen.posttrain.rewards.verify.proxy import Proxy
from xgen.posttrain.rewards.verify.values import Decoder, Encoder

_MOST = 1 << 26  # bytes of a message
_SIZE = struct.Struct(">I")
TESTS = "tests"  # name of the module that the tests make

_DO: dict[str, Callable[..., Any]] = {
    **{name: getattr(operator, name) for name in (
        "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor", "lshift", "rshift",
        "neg", "pos", "invert", "eq", "ne", "lt", "le", "gt", "ge", "getitem", "setitem", "delitem", "contains",
    )},
    **{function.__name__: function for function in (
        len, iter, next, reversed, str, repr, bool, int, float, complex, hash, abs, round, divmod, bytes, format,
    )},
    "index": operator.index,
    "isinstance": lambda kind, value: isinstance(value, kind),
    "issubclass": lambda kind, value: issubclass(value, kind),
    "dir": dir,
    "enter": lambda value: value.__enter__(),
    "exit": lambda value: value.__exit__(None, None, None),
}  # fmt: skip
_OF_TESTS = {"iter", "next", "len", "getitem", "contains", "hash", "eq", "lt", "bool", "str", "repr"}


class GoneError(BaseException):
    """The answer's process has ended. No test's `except Exception` may catch it."""


class AnswerError(Exception):
    """An exception of the answer's that has no builtin class."""


class Link:
    """Requests both ways over one socket, one at a time. `is_answer`: this end is the answer's."""

    def __init__(self, end: socket.socket, is_answer: bool) -> None:
        self._end, self._is_answer, self.is_gone, self.is_out_of_memory = end, is_answer, False, False
        self._held: list[Any] = []  # objects of this end that the other one has
        self._numbers: dict[int, int] = {}
        self._errors: dict[str, type[BaseException]] = {}
        self.names: dict[str, Any] = {}

    # requests to the other end

    def request(self, what: str, *parts: Any) -> Any:
        """Raises what the other end raised, GoneError."""
        if self.is_gone:
            raise GoneError
        self._send({"do": what, "parts": [self.encode(part) for part in parts]})
        while True:
            said = self._receive()
            if "do" in said:
                self._serve(said)
                continue
            if what == "call":
                _restore(parts[1], [(at, self.decode(value)) for at, value in said.get("changed", ())])
            if "raised" in said:
                raise self._error(*said["raised"])
            return self.decode(said["value"])

    def serve_forever(self) -> None:
        try:
            while True:
                self._serve(self._receive())
        except GoneError:
            pass

    # values

    def encode(self, value: Any) -> Any:
        return Encoder(self._handle).encode(value)

    def decode(self, value: Any) -> Any:
        return Decoder(lambda number, is_mine: self._held[number] if is_mine else Proxy(self, number)).decode(value)

    def _handle(self, value: Any) -> tuple[int, bool]:
        """Number of what is no plain value, and whether it is the other end's."""
        if isinstance(value, Proxy):
            return object.__getattribute__(value, "_number"), True
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self._held)
            self._held.append(value)
        return self._numbers[id(value)], False

    # requests of the other end

    def _serve(self, asked: dict[str, Any]) -> None:
        reply: dict[str, Any] = {}
        args: Sequence[Any] = ()
        before: list[Any] = []
        try:
            parts = [self.decode(part) for part in asked["parts"]]
            if asked["do"] == "call":
                args, before = parts[1], asked["parts"][1]["l"]
            reply["value"] = self.encode(self._perform(asked["do"], parts))
        except GoneError:
            raise
        except BaseException as error:  # noqa: BLE001 - also SystemExit: it ends the call
            kinds = [kind.__name__ for kind in type(error).__mro__]
            try:
                arguments = [self.encode(part) for part in error.args]
            except Exception:  # noqa: BLE001
                arguments = []
            reply = {"raised": [kinds, arguments]}
        if args:
            after = [(at, self.encode(value)) for at, value in enumerate(args) if _is_mutable(value)]
            reply["changed"] = [(at, value) for at, value in after if value != before[at]]
        self._send(reply)

    def _perform(self, what: str, parts: Sequence[Any]) -> Any:
        if what == "name" and self._is_answer:
            return self.names[parts[0]]
        if what == "names" and self._is_answer:
            return [_described(name, value) for name, value in self.names.items()]
        target, *rest = parts
        if what == "call":
            if not self._is_answer and not _is_of_tests(target):
                raise PermissionError(what)
            return target(*rest[0], **rest[1])
        if what in ("getattr", "setattr"):
            name = rest[0]
            if not self._is_answer and (name.startswith("_") or type(target).__module__ != TESTS):
                raise PermissionError(name)
            return (getattr if what == "getattr" else setattr)(target, *rest)
        if not self._is_answer and what not in _OF_TESTS:
            raise PermissionError(what)
        return _DO[what](target, *rest)

    def _error(self, kinds: Sequence[str], arguments: Sequence[Any]) -> BaseException:
        self.is_out_of_memory |= kinds[0] == "MemoryError"
        kind = self.error_class(kinds)
        try:
            return kind(*(self.decode(part) for part in arguments))
        except TypeError:
            return AnswerError(kinds[0])

    def error_class(self, kinds: Sequence[str]) -> type[BaseException]:
        """A builtin one, else one of that name below its first builtin base."""
        name = str(kinds[0])
        if name not in self._errors:
            known = (getattr(builtins, str(kind), None) for kind in kinds)
            base = next((kind for kind in known if isinstance(kind, type) and issubclass(kind, Exception)), AnswerError)
            self._errors[name] = base if base.__name__ == name else type(name, (base,), {})
        return self._errors[name]

    # messages

    def _send(self, message: dict[str, Any]) -> None:
        data = json.dumps(message).encode()
        try:
            self._end.sendall(_SIZE.pack(len(data)) + data)
        except OSError as error:
            self.is_gone = True
            raise GoneError from error

    def _receive(self) -> dict[str, Any]:
        try:
            (size,) = _SIZE.unpack(self._exactly(_SIZE.size))
            if size > _MOST:
                raise ValueError(size)
            message = json.loads(self._exactly(size))
            if not isinstance(message, dict):
                raise TypeError(message)
        except (OSError, EOFError, ValueError, TypeError, RecursionError) as error:
            self.is_gone = True
            raise GoneError from error
        return message

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            more = self._end.recv(min(size - len(data), 1 << 20))
            if not more:
                raise EOFError
            data += more
        return bytes(data)


def serve_answer(end: int, source: str) -> None:
    """In the answer's jail: runs it as a module, then does what the tests ask. Exits 0 at their end."""
    link = Link(socket.socket(fileno=end), is_answer=True)
    module = new_module("solution")
    try:
        exec(compile(source, "solution.py", "exec"), module.__dict__)
    except MemoryError:
        os._exit(NO_MEMORY)
    link.names = {name: value for name, value in vars(module).items() if not name.startswith("__")}
    link._send({"ready": True})
    link.serve_forever()
    os._exit(0)


def _described(name: str, value: Any) -> tuple[str, str, Any]:
    """What the tests' process may have of its own in place of the answer's."""
    if isinstance(value, types.ModuleType):
        return name, "library", (value.__name__, None)
    if isinstance(value, type) and issubclass(value, BaseException):
        return name, "error", [kind.__name__ for kind in value.__mro__]
    home, own = getattr(value, "__module__", None), getattr(value, "__name__", None)
    if isinstance(home, str) and isinstance(own, str) and home != "solution":
        return name, "library", (home, own)
    return name, "own", None


def _is_of_tests(value: Any) -> bool:
    """A function, class or method that a test defined, or a builtin that it handed over."""
    return getattr(value, "__module__", None) in (TESTS, "builtins", "operator", "_operator", "math")


def _is_mutable(value: Any) -> bool:
    return type(value) in (list, dict, set, bytearray)


def _restore(args: Sequence[Any], changed: Sequence[tuple[int, Any]]) -> None:
    """What a function did to its arguments is done to those of the caller."""
    for at, new in changed:
        old = args[at]
        if type(old) is not type(new) or not _is_mutable(old):
            continue
        if isinstance(old, list | bytearray):
            old[:] = new
        else:
            old.clear()
            old.update(new)
