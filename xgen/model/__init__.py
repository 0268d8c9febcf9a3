"""Building models from their specs, on torchtitan. Import this before any other torchtitan module: on a machine
without accelerator, torchtitan must be told so first."""

from xgen.model.device import ON_CPU
from xgen.model.llama import titan_model

__all__ = ["ON_CPU", "titan_model"]
