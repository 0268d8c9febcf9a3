"""Checkpoints of small models with random weights, as a training saves them, without the training."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.distributed.checkpoint.state_dict_saver import save as save_state

from tests.evals.made import RESOURCES
from tests.model.parity import titan
from xgen.runs import RunDir
from xgen.runs.origin import Beginning
from xgen.spec import ModelSpec, RopeScaling
from xgen.train.manifest import Manifest, describe, manifest_fingerprint

SIZES: dict[str, Any] = {
    "name": "nano", "dim": 64, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "ffn_dim": 96, "vocab_size": 4096,
}  # fmt: skip


def model_of(**sizes: Any) -> ModelSpec:
    return ModelSpec(**SIZES | sizes)


def random_model(
    seq_len: int, theta: float = 1e4, scaling: RopeScaling | None = None, seed: int = 0, **sizes: Any
) -> torch.nn.Module:
    return titan(model_of(**sizes), seq_len, theta, scaling, seed)


def save(run: RunDir, step: int, state: Mapping[str, torch.Tensor]) -> Path:
    folder = run.checkpoints_dir / f"step-{step}"
    with warnings.catch_warnings(category=UserWarning, action="ignore"):  # that there is but one rank
        save_state({f"model.{name}": tensor for name, tensor in state.items()}, checkpoint_id=folder, no_dist=True)
    files = tuple(describe(file) for file in sorted(folder.iterdir()))
    versions = {"torch": "2.15", "torchtitan": "0.3.0"}
    Manifest(step=step, tokens=step, next_sample=step, world_size=1, data="", files=files, **versions).write(folder)
    return folder


def make(root: Path, name: str, spec: Mapping[str, Any]) -> RunDir:
    run = RunDir(root / name)
    run.create()
    of = {"name": name.rpartition("-")[0], "resources": RESOURCES, "lead": "30s"}
    run.spec_file.write_text(yaml.safe_dump({**of, **spec}))
    return run


def begin(run: RunDir, parent: RunDir, step: int) -> None:
    """The run began from that checkpoint."""
    fingerprint = manifest_fingerprint(parent.checkpoints_dir / f"step-{step}")
    Beginning(run=parent.name, path=str(parent.path), step=step, fingerprint=fingerprint, time=0.0).write(run)
