"""What is in a container, as one line of JSON: read from stdin by the container's own Python, of whatever version.

Standard library only, and nothing of xgen. `torch` and `flash_attn` are imported because an installed one that does not
load is what a check is for.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from typing import Any

MARK = "xgen-probe "  # before the line: an image's start-up may print lines of its own
PACKAGES = ("torch", "torchtitan", "flash-attn", "vllm", "datasets", "tokenizers", "numpy", "pydantic", "triton")


def version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def loaded(module: str, errors: dict[str, str]) -> Any:
    try:
        return importlib.import_module(module)
    except Exception as error:  # noqa: BLE001 - whatever stops the import is the finding
        errors[module] = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        return None


def torch_facts(errors: dict[str, str]) -> dict[str, Any]:
    torch = loaded("torch", errors)
    if torch is None:
        return {}
    found = {"version": torch.__version__, "cuda": torch.version.cuda, "nccl": None, "gpus": 0}
    if found["cuda"] is not None:
        try:
            found["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
            found["gpus"] = torch.cuda.device_count()
        except Exception as error:  # noqa: BLE001 - as above
            errors["nccl"] = f"{type(error).__name__}: {error}".splitlines()[0][:300]
    return found


def driver() -> str | None:
    """Version of the GPU driver that the container sees."""
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    return said.split("\n")[0].strip() or None


def os_name() -> str | None:
    try:
        with open("/etc/os-release", encoding="utf-8") as file:  # noqa: PTH123 - the oldest Python reads this too
            pairs = dict(line.rstrip().split("=", 1) for line in file if "=" in line)
    except OSError:
        return None
    return pairs.get("PRETTY_NAME", "").strip('"') or None


def facts() -> dict[str, Any]:
    errors: dict[str, str] = {}
    packages = {package: version(package) for package in PACKAGES}
    found = {
        "python": platform.python_version(),
        "executable": sys.executable,
        "base_prefix": sys.base_prefix,
        "glibc": platform.libc_ver()[1] or None,
        "os": os_name(),
        "uid": os.getuid(),
        "gid": os.getgid(),
        "compiler": shutil.which("cc") or shutil.which("gcc"),
        "driver": driver(),
        "packages": packages,
        "torch": torch_facts(errors) if packages["torch"] else {},
    }
    if packages["flash-attn"]:
        loaded("flash_attn", errors)
    found["errors"] = errors
    return found


if __name__ == "__main__":
    print(MARK + json.dumps(facts()), flush=True)
