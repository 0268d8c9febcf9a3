"""Building models from their specs, on torchtitan. Import this before any other torchtitan module: on a machine
without accelerator, torchtitan must be told so first; and it is imported here without what we never call."""

from xgen.model.device import ON_CPU
from xgen.model.lean import import_torchtitan

import_torchtitan(ON_CPU)

from xgen.model.llama import titan_model  # noqa: E402 - after that

__all__ = ["ON_CPU", "titan_model"]
