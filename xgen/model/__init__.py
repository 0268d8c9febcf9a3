"""Building models from their specs, on torchtitan. Import this before any other torchtitan module: on a machine
without accelerator, torchtitan must be told so first; and it is imported here without what we never call."""

from xgen.model.device import ON_CPU
from xgen.model.lean import import_torchtitan

import_torchtitan(ON_CPU)

from xgen.model.llama import titan_model  # noqa: E402 - after that
from xgen.model.rope import share_rope_tables  # noqa: E402

__all__ = ["ON_CPU", "share_rope_tables", "titan_model"]
