"""The device and the kernels that torchtitan uses, settled before torchtitan is imported.

torchtitan 0.3.0 chooses at import time and falls back to "cuda" (`torchtitan/tools/utils.py`), and its modules bind
the choice with `from … import`; so it is replaced once, before anyone has bound it.
"""

from __future__ import annotations

import os
import resource
import sys
import types
from importlib.util import find_spec
from typing import Any

import torch


class CpuDevice(types.ModuleType):
    """torch.cpu, and the few functions of an accelerator module that torchtitan calls."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cpu, name)

    def get_device_name(self, device: object = None) -> str:
        del device
        return "cpu"

    def get_device_properties(self, device: object = None) -> types.SimpleNamespace:
        del device
        return types.SimpleNamespace(total_memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), name="cpu")

    def memory_stats(self, device: object = None) -> dict[str, int]:
        """The keys that torchtitan reads; bytes."""
        del device
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        peak = dict.fromkeys(("active_bytes.all.peak", "reserved_bytes.all.peak"), resident)
        return {**peak, "num_alloc_retries": 0, "num_ooms": 0}

    def reset_peak_memory_stats(self, device: object = None) -> None:
        del device

    def empty_cache(self) -> None:
        pass

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0


def _use_cpu_without_accelerator() -> bool:
    if torch.accelerator.is_available():
        return False
    import torchtitan.tools.utils as titan_utils

    bound = [
        name
        for name, module in sys.modules.items()
        if name.startswith("torchtitan.")
        and module is not titan_utils
        and getattr(module, "device_module", None) is torch.cuda
    ]
    assert not bound, f"xgen.model must be imported before {bound}"
    titan_utils.device_type = "cpu"
    titan_utils.device_module = CpuDevice("xgen_cpu_device")
    return True


ON_CPU = _use_cpu_without_accelerator()


# What torchtitan's varlen attention insists on, FlashAttention 3 on Hopper and 4 on Blackwell, by the module that torch
# registers it from. Where it is not installed, torch's own kernel computes the same, as fast as flash-attn 2.
_KERNELS = {"FA3": "flash_attn_interface", "FA4": "flash_attn.cute.interface"}


def _use_installed_kernels() -> None:
    import torchtitan.tools.utils as titan_utils

    wanted = titan_utils.get_cuda_flash_attention_impl

    def installed() -> str | None:
        name: str | None = wanted()
        return name if name is None or _is_there(_KERNELS[name]) else None

    titan_utils.get_cuda_flash_attention_impl = installed


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a package above it
        return False


_use_installed_kernels()
