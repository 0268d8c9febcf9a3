"""torchtitan goes without kernels that are not installed, or that do not load."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT

WITHOUT = """
import torch

torch.accelerator.is_available = lambda: True
import xgen.model
import torchtitan.components.quantization as quantization

print(quantization.MXFP8Linear, quantization.Float8Linear is not None)
try:
    import torchao.prototype.moe_training
except ImportError:
    print("absent")
"""
VARLEN = """
import xgen.model
import torchtitan.tools.utils as utils

utils.has_cuda_capability = lambda major, minor: (major, minor) <= CAPABILITY
print(utils.get_cuda_flash_attention_impl())
"""


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_of_torchao_triton_refuses_is_absent_and_its_float8_is_there() -> None:
    assert run(WITHOUT).splitlines() == ["None True", "absent"]


@pytest.mark.parametrize("capability", [(9, 0), (10, 0)])
def test_varlen_attention_takes_torchs_own_kernel_where_flash_attention_3_and_4_are_not(
    capability: tuple[int, int],
) -> None:
    assert run(VARLEN.replace("CAPABILITY", str(capability))) == "None\n"
