"""An engine with weights that are read from where they lie."""

from __future__ import annotations

import gc
from typing import Protocol

import torch

from xgen.engine.inprocess import InProcessEngine
from xgen.engine.protocol import EngineError
from xgen.model.hf import parameter_shapes
from xgen.spec import ModelSpec, RopeScaling


class Readable(Protocol):
    """All parameters of a model, by torchtitan's names."""

    @property
    def model(self) -> ModelSpec: ...

    def read(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        """The whole parameter, rounded to `dtype`."""
        ...


def open_engine(
    weights: Readable,
    seq_len: int,
    rope_theta: float,
    rope_scaling: RopeScaling | None,
    at_once: int,
    device: str | None,
    fix: str,
) -> InProcessEngine:
    """One parameter at a time is in memory besides. `device`: default a GPU, where there is one; the other arguments
    are InProcessEngine's. Raises EngineError."""
    where, model = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")), weights.model
    try:
        engine = InProcessEngine(model, seq_len, rope_theta, rope_scaling, at_once, where, fix=fix)
        engine.load(0, ((name, weights.read(name, engine.dtype)) for name in parameter_shapes(model)))
    except torch.OutOfMemoryError as error:
        what = f"the {model.num_parameters:,} parameters of {model.name} are too many for {where}"
        raise EngineError(f"{what}: {str(error).splitlines()[0]}; take a larger GPU", retryable=False) from None
    return engine


def leave_gpu() -> None:
    """Give back what models that are gone have held: a process beside this one needs it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
