"""torchtitan without what a pretraining never calls: its imports are most of what a start costs.

Packages that torchtitan imports for a name or two (its own data loaders, TensorBoard) stand in
sys.modules as stand-ins while it is imported, and are taken out again: a later import gets the real package, and a
name that torchtitan took from a stand-in loads it when it is called. On a machine without accelerator nothing is
compiled: there `torch.compile` does nothing meanwhile, and dynamo, which torch's optimizers import to tell it not to
trace them, is loaded by whoever asks more of it. Where torchtitan is not as expected, all is imported as it is.
"""

from __future__ import annotations

import functools
import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.machinery import ModuleSpec
from types import FunctionType, ModuleType
from typing import Any

_TITAN = ("torchtitan.models.llama3", "torchtitan.trainer")
_UNUSED = ("datasets", "datasets.distributed", "torch.utils.tensorboard")
# networkx and Inductor come with them
_UNUSED_ON_CPU = ("torch._functorch.partitioners", "torch._inductor", "torch._inductor.config")
# On a GPU torchao 0.18 imports kernels for experts that Triton 3.9, which is torch 2.15's, refuses with a ValueError;
# torchtitan goes without what it cannot import. A CPU needs nothing of torchao.
_BROKEN = ("torchao.prototype.moe_training", "torchao.prototype.mx_formats")
_DYNAMO = "torch._dynamo"


def import_torchtitan(on_cpu: bool) -> None:
    """Load torchtitan's trainer and the model that we build on."""
    before = set(sys.modules)
    try:
        with (
            _torchao_without(on_cpu),
            _stand_ins(_UNUSED + (_UNUSED_ON_CPU if on_cpu else ())),
            _without_compiler(on_cpu),
        ):
            for name in _TITAN:
                importlib.import_module(name)
    except Exception as error:  # noqa: BLE001 - whatever a stand-in was not good enough for
        print(f"torchtitan is not as expected ({error!r}): importing all of it", file=sys.stderr, flush=True)
        stand_in = sys.modules.get(_DYNAMO)
        if isinstance(stand_in, _DynamoStandIn):
            stand_in.replace()
        for name in set(sys.modules) - before:
            if name.partition(".")[0] == "torchtitan":
                del sys.modules[name]
        for name in _TITAN:
            importlib.import_module(name)


@contextmanager
def _torchao_without(on_cpu: bool) -> Iterator[None]:
    """What stands in sys.modules as None is an ImportError, as where it is not installed."""
    names = ("torchao",) if on_cpu else _BROKEN
    added = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(added))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in added if on_cpu else ():  # on a GPU float8 comes to them later, too
            del sys.modules[name]


class _Late(type):
    """A name of a module that is not loaded yet: calling it loads the module and calls what it stands for."""

    _module: str

    def __new__(cls, name: str, bases: tuple[type, ...], content: dict[str, Any]) -> _Late:
        if bases:
            raise TypeError(f"{bases[0].__module__}.{bases[0].__name__} is not loaded and cannot be a base class")
        return super().__new__(cls, name, bases, content)

    def _real(cls) -> Any:
        return getattr(importlib.import_module(cls._module), cls.__name__)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return cls._real()(*args, **kwargs)

    def __instancecheck__(cls, instance: object) -> bool:
        """There are no instances of what is not loaded."""
        loaded = vars(sys.modules.get(cls._module, cls)).get(cls.__name__)
        return loaded is not None and isinstance(instance, loaded)


class _StandIn(ModuleType):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Late(name, (), {"_module": self.__name__})


@contextmanager
def _stand_ins(names: Sequence[str]) -> Iterator[None]:
    sys.modules.update({name: _StandIn(name) for name in names if name not in sys.modules})
    try:
        yield
    finally:
        _take_out_stand_ins()


def _take_out_stand_ins(prefix: str = "") -> None:
    for name in [name for name, module in sys.modules.items() if isinstance(module, _StandIn)]:
        if name.startswith(prefix):
            del sys.modules[name]


@contextmanager
def _without_compiler(on_cpu: bool) -> Iterator[None]:
    """What torchtitan compiles at import stays as it is; dynamo stays out for good, unless it is asked for."""
    if not on_cpu:
        yield
        return
    import torch

    if _DYNAMO not in sys.modules:
        _DynamoStandIn().place()
    kept, torch.compile = torch.compile, _as_it_is  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.compile = kept


def _as_it_is(function: Callable[..., Any] | None = None, **settings: Any) -> Any:
    del settings
    return function or _as_it_is


class _DynamoStandIn(ModuleType):
    """`torch._dynamo` until somebody needs it: while it is not loaded, nothing is traced, so there is nothing to
    break off or to leave out. Any other use, and importing any part of it, puts the real one in its place."""

    def __init__(self) -> None:
        super().__init__(_DYNAMO)
        spec = importlib.util.find_spec(_DYNAMO)
        assert spec and spec.submodule_search_locations
        self.__path__ = list(spec.submodule_search_locations)
        self.trace_rules = _NoRules(self)
        self.OptimizedModule = _Late("OptimizedModule", (), {"_module": _DYNAMO})
        self._left_out: list[FunctionType] = []
        self._notes: list[tuple[str, Any]] = []
        self._real: Any = None
        self._finder = _PartsOfDynamo(self)

    def place(self) -> None:
        sys.modules[_DYNAMO] = self
        sys.meta_path.insert(0, self._finder)

    def graph_break(self, msg: str = "") -> None:
        del msg

    def disable_nested_graph_breaks(self) -> AbstractContextManager[None]:
        return nullcontext()

    def disable(self, fn: Any = None, recursive: bool = True, **settings: Any) -> Any:
        if not isinstance(fn, FunctionType):
            return self.replace().disable(fn, recursive, **settings)
        if settings == {"wrapping": False}:  # torch/_compile.py, which keeps the answer at the function
            self._left_out.append(fn)
            return fn

        made: list[Any] = []

        @functools.wraps(fn)
        def disabled(*args: Any, **kwargs: Any) -> Any:
            if self._real is None:
                return fn(*args, **kwargs)
            if not made:
                made.append(self._real.disable(fn, recursive, **settings))
            return made[0](*args, **kwargs)

        return disabled

    def allow_in_graph(self, fn: Any) -> Any:
        return self._note("allow_in_graph", fn)

    def disallow_in_graph(self, fn: Any) -> Any:
        return self._note("disallow_in_graph", fn)

    def assume_constant_result(self, fn: Any) -> Any:
        return self._note("assume_constant_result", fn)

    def _note(self, what: str, fn: Any) -> Any:
        """It marks a function for a tracing to come: said again to the real one."""
        self._notes.append((what, fn))
        return fn

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system looks at it; no user of dynamo does
            raise AttributeError(name)
        return getattr(self.replace(), name)

    def replace(self) -> Any:
        """Import the real one, once."""
        if sys.modules.get(_DYNAMO) is self:
            sys.meta_path.remove(self._finder)
            del sys.modules[_DYNAMO]
            _take_out_stand_ins("torch.")  # it imports them in earnest
            for function in self._left_out:
                vars(function).pop("__dynamo_disable", None)
            self._real = importlib.import_module(_DYNAMO)
            for what, function in self._notes:
                getattr(self._real, what)(function)
        return importlib.import_module(_DYNAMO)


class _NoRules:
    """`torch._dynamo.trace_rules` without a rule: forgetting them is all that torch asks of them by itself."""

    def __init__(self, stand_in: _DynamoStandIn) -> None:
        self._stand_in = stand_in

    def clear_lru_cache(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stand_in.replace().trace_rules, name)


class _PartsOfDynamo(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """A part of dynamo is imported by its name: the real dynamo comes first, and may bring the part with it."""

    def __init__(self, stand_in: _DynamoStandIn) -> None:
        self._stand_in = stand_in
        self._spec: ModuleSpec | None = None

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        del path, target
        if not name.startswith(f"{_DYNAMO}.") or name == f"{_DYNAMO}.config":  # which stands alone
            return None
        self._stand_in.replace()
        if name not in sys.modules:
            return None
        module, alias = sys.modules[name], ModuleSpec(name, self)
        # The import system takes the spec of a module that came meanwhile, and would execute it again.
        self._spec, module.__spec__ = module.__spec__, alias
        return alias

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return sys.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec
