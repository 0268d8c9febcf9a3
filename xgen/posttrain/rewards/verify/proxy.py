"""What one jail has of an object in the other: operations on it are requests.

Whether it equals a plain value is not its to say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xgen.posttrain.rewards.verify.remote import Link


class Proxy:
    """An object of the other end."""

    __slots__ = ("_link", "_number")

    def __init__(self, link: Link, number: int) -> None:
        object.__setattr__(self, "_link", link)
        object.__setattr__(self, "_number", number)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__") and name not in ("__name__", "__doc__", "__dict__"):
            raise AttributeError(name)
        return _ask(self, "getattr", name)

    def __setattr__(self, name: str, value: Any) -> None:
        _ask(self, "setattr", name, value)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _ask(self, "call", list(args), kwargs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Proxy) and bool(_ask(self, "eq", other))

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return int(_ask(self, "hash"))

    def __bool__(self) -> bool:
        return bool(_ask(self, "bool"))

    def __instancecheck__(self, value: object) -> bool:
        return bool(_ask(self, "isinstance", value))

    def __subclasscheck__(self, kind: object) -> bool:
        return bool(_ask(self, "issubclass", kind))

    def __enter__(self) -> Any:
        return _ask(self, "enter")

    def __exit__(self, *_: object) -> None:
        _ask(self, "exit")

    def __iter__(self) -> Any:
        return _ask(self, "iter")

    def __next__(self) -> Any:
        return _ask(self, "next")


def _ask(proxy: Proxy, what: str, *parts: Any) -> Any:
    return object.__getattribute__(proxy, "_link").request(what, proxy, *parts)


def _operation(name: str, is_ordering: bool) -> Callable[..., Any]:
    def operation(self: Proxy, *parts: Any) -> Any:
        if is_ordering and not isinstance(parts[0], Proxy):
            return NotImplemented
        return _ask(self, name, *parts)

    return operation


for _name in ("lt", "le", "gt", "ge"):
    setattr(Proxy, f"__{_name}__", _operation(_name, is_ordering=True))
for _name in (
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift", "rshift"),
    *("neg", "pos", "invert", "abs", "round", "divmod", "len", "reversed", "contains", "getitem", "setitem"),
    *("delitem", "str", "repr", "int", "float", "complex", "index", "bytes", "format", "dir"),
):
    setattr(Proxy, f"__{_name}__", _operation(f"{_name}_" if _name in ("and", "or") else _name, is_ordering=False))
