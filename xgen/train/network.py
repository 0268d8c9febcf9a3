"""What one rank of `xgen doctor --network` does: an all-reduce with the others, and the links between the nodes.

python -m xgen.train.network
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
import torch.distributed as dist

from xgen.runs import write_atomic
from xgen.train.fabric import bus_bandwidth, links, slowest


def main() -> None:
    rank, ranks = int(os.environ["XGEN_RANK"]), int(os.environ["XGEN_WORLD_SIZE"])
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["XGEN_LOCAL_RANK"])) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    backend = "nccl" if on_gpu else "gloo"
    where = f"tcp://{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    dist.init_process_group(backend, init_method=where, rank=rank, world_size=ranks)
    node = os.environ.get("SLURMD_NODENAME") or os.uname().nodename
    nodes: list[str] = [""] * ranks
    dist.all_gather_object(nodes, node)
    names = list(dict.fromkeys(nodes))
    found = bus_bandwidth(device)
    slow = slowest(*links(device, ranks // len(names), node)) if len(names) > 1 else "one node only"
    if rank == 0:
        measured = {"bandwidth": found, "ranks": ranks, "nodes": names, "backend": backend, "slowest": str(slow)}
        write_atomic(Path(os.environ["XGEN_RUN_DIR"]) / "network.json", json.dumps(measured) + "\n")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
