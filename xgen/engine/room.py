"""How many answers fit into memory."""

from __future__ import annotations

from pathlib import Path

import torch

from xgen.engine.decoder import Decoder

_SHARE = {"cuda": 0.9, "cpu": 0.5}  # of what is free; elsewhere on a node there may be more shards
_CGROUPS = Path("/sys/fs/cgroup")


def num_tokens(decoder: Decoder) -> int:
    """Tokens whose keys and values there is memory for, beside what a pass takes. The weights are loaded."""
    model, device = decoder.model, decoder.device
    size = decoder.dtype.itemsize
    of_token = 2 * model.num_layers * model.num_kv_heads * model.head_dim * size
    of_pass = decoder.at_a_time * (4 * model.ffn_dim + 8 * model.dim) * size + (1 << 30 if device.type == "cuda" else 0)
    free = _free_on_gpu(device) if device.type == "cuda" else free_memory()
    return max(0, int(_SHARE[device.type] * free) - of_pass) // of_token


def _free_on_gpu(device: torch.device) -> int:
    """Bytes; what torch has given up is free to it."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def free_memory(cgroups: Path = _CGROUPS) -> int:
    """Bytes that this process can take: of the machine, and of each cgroup that it is in."""
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free = 1024 * int(fields["MemAvailable"].split()[0])
    own = next((line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")), "/")
    place = cgroups / own.lstrip("/")
    for folder in (place, *place.parents):
        if folder.is_relative_to(cgroups) and (limit := _number(folder / "memory.max")) is not None:
            taken = (_number(folder / "memory.current") or 0) - _cached(folder)
            free = min(free, max(0, limit - taken))
    return free


def _cached(cgroup: Path) -> int:
    """Bytes of files that were read, the checkpoint among them: the kernel drops them for whoever needs the room."""
    try:
        fields = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
    except OSError:
        return 0
    return int(fields.get("inactive_file", 0))


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # "max", and what this kernel has not
        return None
